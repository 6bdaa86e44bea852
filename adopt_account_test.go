package certwright

import (
	"context"
	"log/slog"
	"testing"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

// accountSource has an account and no certificates.
type accountSource struct{ account *adopt.Account }

func (accountSource) String() string { return "fake" }

func (accountSource) Find(context.Context, []string) ([]adopt.Pair, error) { return nil, nil }

func (s accountSource) Account(context.Context, string) (*adopt.Account, error) {
	return s.account, nil
}

// TestAdoptPrefersAnAccount takes the account of the configured e-mail, and none
// that is bound to another one outside of ACME.
func TestAdoptPrefersAnAccount(t *testing.T) {
	key := func() string {
		key, err := certpem.GenerateKey(certpem.P256)
		if err != nil {
			t.Fatal(err)
		}
		pem, err := certpem.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem)
	}
	first := &adopt.Account{File: "first", KeyPEM: key(), Contact: []string{"mailto:first@example.com"}, EABKeyID: "one"}
	first.Others = []adopt.Account{{File: "second", KeyPEM: key(), Contact: []string{"mailto:second@example.com"}, EABKeyID: "two"}}
	s, err := openSources([]adopt.Source{accountSource{}, accountSource{first}}, slog.New(slog.DiscardHandler), func(f func()) { go f() })
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
