package adopt

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"
)

const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

func TestSafe(t *testing.T) {
	tests := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"WWW.Example.COM", "www.example.com"},
		{" example.com\t", "example.com"},
		{"*.example.com", "wildcard_.example.com"},
		{"a+b.example.com", "a_plus_b.example.com"},
		{"me+tag@Example.com", "me_plus_tag@example.com"},
		{"192.0.2.7", "192.0.2.7"},
		{"2001:db8::1", "2001-db8--1"},
		{"::1", "--1"},
		{"xn--mnchen-3ya.de", "xn--mnchen-3ya.de"},
		{"münchen.de", "mnchen.de"},
		{"a b", "a_b"},
		{"../../etc/passwd", "etcpasswd"},
		{"a,b", "ab"},
		{"_acme.example.com", "_acme.example.com"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := safe(tt.in); got != tt.want {
			t.Errorf("safe(%q) = %q; want %q", tt.in, got, tt.want)
		}
		if got := safe(safe(tt.in)); got != safe(tt.in) {
			t.Errorf("safe of safe(%q) = %q", tt.in, got)
		}
	}
}

func TestCASegment(t *testing.T) {
	tests := []struct{ in, want string }{
		{letsEncrypt, "acme-v02.api.letsencrypt.org-directory"},
		{"https://acme-staging-v02.api.letsencrypt.org/directory", "acme-staging-v02.api.letsencrypt.org-directory"},
		{"https://acme.zerossl.com/v2/DV90", "acme.zerossl.com-v2-dv90"},
		{"https://dv.acme-v02.api.pki.goog/directory", "dv.acme-v02.api.pki.goog-directory"},
		{"https://127.0.0.1:14000/dir", "127.0.0.1-14000-dir"},
		{"https://ca.example/", "ca.example"},
	}
	for _, tt := range tests {
		if got := caSegment(tt.in); got != tt.want {
			t.Errorf("caSegment(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestSites(t *testing.T) {
	tests := []struct {
		names []string
		want  []string
	}{
		{[]string{"www.example.com"}, []string{"www.example.com", "wildcard_.example.com"}},
		{[]string{"*.example.com"}, []string{"wildcard_.example.com"}},
		{[]string{"2001:db8::1"}, []string{"2001-db8--1"}},
		{[]string{"localhost"}, []string{"localhost"}},
		{[]string{"b.example", "a.example"}, []string{"a.exampleb.example"}},
	}
	for _, tt := range tests {
		if got := sites(tt.names); !slices.Equal(got, tt.want) {
			t.Errorf("sites(%q) = %q; want %q", tt.names, got, tt.want)
		}
	}
}

// mapTree is a Tree in memory that counts its lists.
type mapTree struct {
	files map[string]string
	lists int
	err   error
}

func (m *mapTree) Load(_ context.Context, key string) ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	value, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(value), nil
}

func (m *mapTree) List(_ context.Context, prefix string) ([]string, error) {
	m.lists++
	if m.err != nil {
		return nil, m.err
	}
	keys := slices.Sorted(maps.Keys(m.files))
	return slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix+"/") }), nil
}

// fixture reads a tree of testdata/adopt, links resolved.
func fixture(t testing.TB, name string) *mapTree {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("..", "..", "testdata", "adopt", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mapTree{files: map[string]string{}}
	links := map[string]string{}
	for _, f := range a.Files {
		if name, target, ok := strings.Cut(f.Name, " -> "); ok {
			links[name] = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			continue
		}
		m.files[f.Name] = string(f.Data)
	}
	for name, target := range links {
		m.files[name] = m.files[target]
	}
	return m
}

func reader(l Layout, tree Tree) Reader { return l(tree, letsEncrypt) }

// TestDescriptions reads what each layout tells of a certificate and its account.
func TestDescriptions(t *testing.T) {
	tests := []struct {
		tree          string
		layout        Layout
		account, url  bool
		info, contact bool
		location      bool
	}{
		{"certmagic", CertMagic, true, true, true, true, true},
		{"autocert", Autocert, false, false, false, false, false},
		{"lego4", Lego, false, true, false, true, true},
		{"lego5", Lego, false, true, false, true, true},
		{"certbot", Certbot, true, false, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.tree, func(t *testing.T) {
			r := reader(tt.layout, fixture(t, tt.tree))
			certs, errs := r.Certificates(t.Context(), Query{Names: []string{"example.com"}, CAs: []string{letsEncrypt + "/"}, Now: time.Now()})
			if len(certs) == 0 || len(errs) > 0 {
				t.Fatalf("%v, %v", certs, errs)
			}
			c := certs[0]
			if c.CA != letsEncrypt+"/" || (c.Account != "") != tt.account || (c.URL != "") != tt.url || (c.Info != nil) != tt.info {
				t.Errorf("%+v", c)
			}
			accounts, errs := r.Accounts(t.Context(), letsEncrypt)
			if len(accounts) != 1 || len(errs) > 0 {
				t.Fatalf("accounts %v, %v", accounts, errs)
			}
			a := accounts[0]
			if a.CA != letsEncrypt || a.Key == nil || (a.Location != "") != tt.location || (len(a.Contact) > 0) != tt.contact {
				t.Errorf("%+v", a)
			}
			if tt.account && a.Location != c.Account {
				t.Errorf("the account is %q, that of the certificate %q", a.Location, c.Account)
			}
			accounts, errs = r.Accounts(t.Context(), "https://ca.example/directory")
			if len(accounts)+len(errs) > 0 {
				t.Errorf("accounts at another CA: %v, %v", accounts, errs)
			}
		})
	}
}

// TestDamagedAccounts passes over what cannot be used and names it.
func TestDamagedAccounts(t *testing.T) {
	const user = "acme/acme-v02.api.letsencrypt.org-directory/users/me_plus_tag@example.com/me_plus_tag"
	const lego5 = "accounts/acme-v02.api.letsencrypt.org/me+tag@Example.com/"
	tests := []struct {
		name   string
		tree   string
		layout Layout
		file   string // by how it ends
		value  string
		names  string // the file that the error names; empty when the account is good
	}{
		{"key cut short", "certmagic", CertMagic, user + ".key", "-----BEGIN EC PRIVATE KEY-----\nMHcC", user + ".key"},
		{"HTML", "certmagic", CertMagic, user + ".json", "<html>", user + ".json"},
		{"deactivated", "certmagic", CertMagic, user + ".json", `{"status":"deactivated"}`, user + ".json"},
		{"not registered yet", "certmagic", CertMagic, user + ".json", `{}`, ""},
		{"empty key", "autocert", Autocert, "acme_account+key", "", "acme_account+key"},
		{"no registration", "lego5", Lego, lego5 + "account.json", `{"email":"me@example.com"}`, ""},
		{"another server", "lego5", Lego, lego5 + "account.json", `{"server":"https://ca.example/dir"}`, "none"},
		{"empty account", "lego5", Lego, lego5 + "account.json", ``, lego5 + "account.json"},
		{"wrong kind", "lego4", Lego, lego5 + "account.json", `{"registration":{"body":[]}}`, lego5 + "account.json"},
		{"revoked", "lego4", Lego, lego5 + "account.json", `{"registration":{"uri":"https://a/1","body":{"status":"revoked"}}}`, lego5 + "account.json"},
		{"no key", "certbot", Certbot, "private_key.json", `{"kty":"RSA"}`, "private_key.json"},
		{"regr is HTML", "certbot", Certbot, "regr.json", `<html>`, "regr.json and good"},
	}
	for _, tt := range tests {
		t.Run(tt.tree+"/"+tt.name, func(t *testing.T) {
			tree := fixture(t, tt.tree)
			found := false
			for name := range tree.files {
				if strings.HasSuffix(name, tt.file) {
					tree.files[name], found = tt.value, true
				}
			}
			if !found {
				t.Fatalf("no file %q", tt.file)
			}
			accounts, errs := reader(tt.layout, tree).Accounts(t.Context(), letsEncrypt)
			want, good := strings.CutSuffix(tt.names, " and good")
			good = good || want == ""
			if (len(accounts) == 1) != good {
				t.Errorf("%d accounts", len(accounts))
			}
			switch {
			case want == "" || want == "none":
				if len(errs) > 0 {
					t.Errorf("errors %v", errs)
				}
			case len(errs) != 1 || !strings.HasSuffix(errs[0].File, want) || errs[0].Unreadable:
				t.Errorf("errors %v; want one for %q", errs, want)
			}
		})
	}
}

func TestAccountWithEAB(t *testing.T) {
	tree := fixture(t, "certmagic")
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"kid-7","url":"https://a"}`))
	for name := range tree.files {
		if strings.HasSuffix(name, "me_plus_tag.json") {
			tree.files[name] = `{"status":"valid","externalAccountBinding":{"protected":"` + header + `","payload":"e30","signature":"AA"}}`
		}
	}
	accounts, errs := reader(CertMagic, tree).Accounts(t.Context(), letsEncrypt)
	if len(accounts) != 1 || len(errs) > 0 || accounts[0].EABKeyID != "kid-7" {
		t.Errorf("%+v, %v", accounts, errs)
	}
}

// TestListIsKept lists once for many names, again after a while, and again after
// a failure.
func TestListIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := fixture(t, "certmagic")
		r := reader(CertMagic, tree)
		look := func() (int, []*FileError) {
			certs, errs := r.Certificates(t.Context(), Query{Names: []string{"example.com"}, Now: time.Now()})
			return len(certs), errs
		}
		tree.err = errors.New("down")
		if n, errs := look(); n != 0 || len(errs) != 1 || !errs[0].Unreadable || !errors.Is(errs[0], tree.err) {
			t.Errorf("%d, %v of a tree that is down", n, errs)
		}
		tree.err = nil
		for range 100 {
			if n, errs := look(); n != 1 || len(errs) > 0 {
				t.Fatalf("%d, %v", n, errs)
			}
		}
		if tree.lists != 2 {
			t.Errorf("%d lists; want one that failed and one that is kept", tree.lists)
		}
		for name := range tree.files {
			if strings.Contains(name, "/example.com/") {
				delete(tree.files, name)
			}
		}
		if n, errs := look(); n != 0 || len(errs) > 0 {
			t.Errorf("%d, %v of what has gone since it was listed", n, errs)
		}
		time.Sleep(2 * listLife)
		if look(); tree.lists != 3 {
			t.Errorf("%d lists after a while; want another", tree.lists)
		}
	})
}

func TestCertbotRenewalParams(t *testing.T) {
	conf := "# c\r\nserver = before\n[renewalparams]\nserver = https://ca.example/dir\naccount= \"abc\" \n#server = no\nodd\n= x\n" +
		"[[webroot_map]]\nserver = map\n[other]\nserver = other\n"
	got := renewalParams([]byte(conf))
	if got["server"] != "https://ca.example/dir" || got["account"] != "abc" {
		t.Errorf("%q", got)
	}
}

func TestCertbotTakesTheNewestArchive(t *testing.T) {
	for file, want := range map[string]int{
		"archive/a/fullchain1.pem": 1, "archive/a/fullchain12.pem": 12, "archive/a/fullchain.pem": 0,
		"archive/a/chain3.pem": 0, "archive/a/fullchain-1.pem": 0, "": 0,
	} {
		if got := version(file); max(got, 0) != want {
			t.Errorf("version(%q) = %d; want %d", file, got, want)
		}
	}
	tree := fixture(t, "certbot")
	for name, value := range tree.files {
		if strings.HasPrefix(name, "archive/copied.example.org/") {
			old := strings.Replace(name, "2.pem", "1.pem", 1)
			tree.files[old] = "stale"
			tree.files[strings.Replace(name, "2.pem", "10.pem", 1)] = value
		}
	}
	certs, errs := reader(Certbot, tree).Certificates(t.Context(), Query{Names: []string{"copied.example.org"}, Now: time.Now()})
	if len(certs) != 1 || len(errs) > 0 || certs[0].File != "archive/copied.example.org/fullchain10.pem" {
		t.Errorf("%+v, %v", certs, errs)
	}
}
