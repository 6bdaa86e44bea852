package certwright_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/storage"
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
// it, and goes on to what does; without that a certificate is ordered. F46.
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
		chain, key = pairFor(t, time.Now().Add(time.Hour), time.Now().Add(80*day), "example.com")
		ahead := adopt.Pair{File: "not valid yet", CertPEM: string(chain), KeyPEM: string(key)}
		tests, noKey := good[0], good[0]
		tests.File, tests.CA, tests.URL = "tests", "", "https://acme-staging-v02.api.letsencrypt.org/acme/cert/1"
		noKey.File, noKey.KeyPEM = "no key", ""
		logger, logs := observed(slog.LevelWarn)
		conf.Logger = logger
		useless := []adopt.Pair{{File: "empty"}, noKey, other[0], tests, expired, ahead}
		conf.Adopt = []adopt.Source{fakeSource{pairs: append(useless, good[0])}}
		m := start(t, conf)
		manage(t, m, "example.com")
		if ca.Count("newOrder") != 0 || logs.Len() != len(useless) {
			t.Errorf("%d orders, warnings %v; want none, and a warning for each of %d", ca.Count("newOrder"), logs.All(), len(useless))
		}
		closeManager(t, m)
		conf.Storage, conf.Adopt = storage.NewMemory(), []adopt.Source{fakeSource{pairs: useless}}
		m = start(t, conf)
		manage(t, m, "example.com")
		if now := time.Now(); ca.Count("newOrder") != 1 || mustLeaf(t, m, "example.com").NotBefore.After(now) {
			t.Errorf("%d orders; want one", ca.Count("newOrder"))
		}
	})
}
