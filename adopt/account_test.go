package adopt_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/adopt"
)

// TestDamagedAccounts passes over what cannot be used and names it.
func TestDamagedAccounts(t *testing.T) {
	const user = "acme/acme-v02.api.letsencrypt.org-directory/users/me_plus_tag@example.com/me_plus_tag"
	const lego5 = "accounts/acme-v02.api.letsencrypt.org/me+tag@Example.com/"
	tests := []struct {
		name   string
		tree   string
		source func(dir string) adopt.Source
		file   string // by how it ends
		value  string
		names  string // the file that the error names; empty when the account is good
	}{
		{"key cut short", "certmagic", adopt.CertMagic, user + ".key", "-----BEGIN EC PRIVATE KEY-----\nMHcC", user + ".key"},
		{"HTML", "certmagic", adopt.CertMagic, user + ".json", "<html>", user + ".json"},
		{"deactivated", "certmagic", adopt.CertMagic, user + ".json", `{"status":"deactivated"}`, user + ".json"},
		{"not registered yet", "certmagic", adopt.CertMagic, user + ".json", `{}`, ""},
		{"empty key", "autocert", autocert, "acme_account+key", "", "acme_account+key"},
		{"no registration", "lego5", adopt.Lego, lego5 + "account.json", `{"email":"me@example.com"}`, ""},
		{"another server", "lego5", adopt.Lego, lego5 + "account.json", `{"server":"https://ca.example/dir"}`, "none"},
		{"empty account", "lego5", adopt.Lego, lego5 + "account.json", ``, lego5 + "account.json"},
		{"wrong kind", "lego4", adopt.Lego, lego5 + "account.json", `{"registration":{"body":[]}}`, lego5 + "account.json"},
		{"revoked", "lego4", adopt.Lego, lego5 + "account.json", `{"registration":{"uri":"https://a/1","body":{"status":"revoked"}}}`, lego5 + "account.json"},
		{"no key", "certbot", adopt.Certbot, "private_key.json", `{"kty":"RSA"}`, "private_key.json"},
		{"regr is HTML", "certbot", adopt.Certbot, "regr.json", `<html>`, "regr.json and good"},
	}
	for _, tt := range tests {
		t.Run(tt.tree+"/"+tt.name, func(t *testing.T) {
			dir := unpacked(t, tt.tree)
			write(t, fileWith(t, dir, tt.file), []byte(tt.value))
			a, err := tt.source(dir).Account(t.Context(), letsEncrypt)
			want, good := strings.CutSuffix(tt.names, " and good")
			good = good || want == ""
			if (a != nil) != good {
				t.Errorf("account %v", a)
			}
			bad := fileErrors(t, err)
			switch {
			case want == "" || want == "none":
				if len(bad) > 0 {
					t.Errorf("errors %v", bad)
				}
			case len(bad) != 1 || !strings.HasSuffix(bad[0].File, want) || bad[0].Unreadable:
				t.Errorf("errors %v; want one for %q", bad, want)
			}
		})
	}
}

func TestAccountWithEAB(t *testing.T) {
	dir := unpacked(t, "certmagic")
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"kid-7","url":"https://a"}`))
	write(t, fileWith(t, dir, "me_plus_tag.json"),
		[]byte(`{"status":"valid","externalAccountBinding":{"protected":"`+header+`","payload":"e30","signature":"AA"}}`))
	a, err := adopt.CertMagic(dir).Account(t.Context(), letsEncrypt)
	if a == nil || err != nil || a.EABKeyID != "kid-7" {
		t.Errorf("%v, %v", a, err)
	}
}

// TestSeveralAccounts returns all accounts at a CA.
func TestSeveralAccounts(t *testing.T) {
	dir := unpacked(t, "certmagic")
	users := filepath.Join(dir, "acme", "acme-v02.api.letsencrypt.org-directory", "users")
	write(t, filepath.Join(users, "you@example.com", "you.key"), read(t, fileWith(t, dir, "me_plus_tag.key")))
	write(t, filepath.Join(users, "you@example.com", "you.json"), []byte(`{"status":"valid","contact":["mailto:you@example.com"]}`))
	a, err := adopt.CertMagic(dir).Account(t.Context(), letsEncrypt)
	if a == nil || err != nil || len(a.Others) != 1 {
		t.Fatalf("%v, %v; want one with another", a, err)
	}
	other := a.Others[0]
	if a.Contact[0] == "mailto:you@example.com" || other.Contact[0] != "mailto:you@example.com" ||
		other.Directory != letsEncrypt || other.KeyPEM == "" || other.Others != nil {
		t.Errorf("%v and %v", a, other)
	}
}

// TestLinkedCertbotAccounts follows the links that certbot makes to the accounts
// of Let's Encrypt's first version. F46.
func TestLinkedCertbotAccounts(t *testing.T) {
	dir := unpacked(t, "certbot")
	v1 := filepath.Join(dir, "accounts", "acme-v01.api.letsencrypt.org", "directory")
	v2 := filepath.Join(dir, "accounts", "acme-v02.api.letsencrypt.org", "directory")
	rename(t, v2, v1)
	found := func(when string) {
		t.Helper()
		s := adopt.Certbot(dir)
		a, err := s.Account(t.Context(), letsEncrypt)
		if a == nil || err != nil || a.Location == "" || len(a.Others) > 0 {
			t.Errorf("%s: %v, %v", when, a, err)
		}
	}
	found("no link")
	link(t, v1, v2)
	found("a link to the accounts")
	pairs, err := adopt.Certbot(dir).Find(t.Context(), []string{"example.com"})
	if len(pairs) != 1 || err != nil || pairs[0].Account == "" {
		t.Errorf("%v, %v; want the account of the certificate", pairs, err)
	}
	if err := os.Remove(v2); err != nil {
		t.Fatal(err)
	}
	link(t, "/none/such", v2)
	found("a link that leads nowhere")
	if err := os.Remove(v2); err != nil {
		t.Fatal(err)
	}
	ids, err := os.ReadDir(v1)
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	link(t, filepath.Join(v1, ids[0].Name()), filepath.Join(v2, ids[0].Name()))
	found("a link to one account")
	link(t, dir, filepath.Join(v1, "circle")) // ends
	found("a circle")
}
