package certwright

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/adopt"
)

// fakeSource is a caller's own Source.
type fakeSource struct {
	pairs   []adopt.Pair
	account *adopt.Account
	err     error
}

func (s fakeSource) String() string { return "fake" }

func (s fakeSource) Find(context.Context, []string) ([]adopt.Pair, error) { return s.pairs, s.err }

func (s fakeSource) Account(context.Context, string) (*adopt.Account, error) {
	return s.account, s.err
}

// TestAdoptChecksACallersSource serves nothing that does not fit, whoever found
// it, and goes on to what does.
func TestAdoptChecksACallersSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFakeLetsEncrypt(t)
		good, err := adopt.Certbot(unpack(t, "certbot")).Find(t.Context(), []string{"example.com"})
		if err != nil || len(good) != 1 {
			t.Fatal(good, err)
		}
		other, err := adopt.Certbot(unpack(t, "certbot")).Find(t.Context(), []string{"copied.example.org"})
		if err != nil || len(other) != 1 {
			t.Fatal(other, err)
		}
		chain, key := pairFor(t, time.Now().Add(-2*day), time.Now(), "example.com")
		expired := adopt.Pair{File: "expired", CertPEM: string(chain), KeyPEM: string(key)}
		tests, noKey := good[0], good[0]
		tests.File, tests.CA, tests.URL = "tests", "", "https://acme-staging-v02.api.letsencrypt.org/acme/cert/1"
		noKey.File, noKey.KeyPEM = "no key", ""
		logger, logs := observed(slog.LevelWarn)
		conf.Logger = logger
		conf.Adopt = []adopt.Source{fakeSource{pairs: []adopt.Pair{{File: "empty"}, noKey, other[0], tests, expired, good[0]}}}
		m := start(t, conf)
		manage(t, m, "example.com")
		if ca.Count("newOrder") != 0 || logs.Len() != 5 {
			t.Errorf("%d orders, warnings %v; want none, and a warning for each of 5", ca.Count("newOrder"), logs.All())
		}
	})
}

// TestAdoptPrefersAnAccount takes the account of the configured e-mail, and none
// that is bound to another one outside of ACME.
func TestAdoptPrefersAnAccount(t *testing.T) {
	key := func() string {
		_, pem := pairFor(t, time.Now(), time.Now().Add(day), "example.com")
		return string(pem)
	}
	first := &adopt.Account{File: "first", KeyPEM: key(), Contact: []string{"mailto:first@example.com"}, EABKeyID: "one"}
	first.Others = []adopt.Account{{File: "second", KeyPEM: key(), Contact: []string{"mailto:second@example.com"}, EABKeyID: "two"}}
	s, err := openSources([]adopt.Source{fakeSource{}, fakeSource{account: first}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ email, eab, want string }{
		{"", "", first.KeyPEM},
		{"none@example.com", "", first.KeyPEM},
		{"second@example.com", "", first.Others[0].KeyPEM},
		{"first@example.com", "two", first.Others[0].KeyPEM},
		{"first@example.com", "three", ""},
	} {
		got := ""
		r, err := s.account(t.Context(), LetsEncrypt, tt.email, tt.eab)
		if err != nil {
			t.Fatal(err)
		}
		if r != nil {
			got = r.KeyPEM
		}
		if got != tt.want {
			t.Errorf("%+v: another account", tt)
		}
	}
}
