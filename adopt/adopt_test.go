package adopt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

// TestFindsWhatIsTold reads what each store tells of a certificate and its account.
func TestFindsWhatIsTold(t *testing.T) {
	tests := []struct {
		tree          string
		source        func(dir string) adopt.Source
		ca            string
		account, url  bool
		info, contact bool
		location      bool
	}{
		{"certmagic", adopt.CertMagic, letsEncrypt, true, true, true, true, true},
		{"autocert", autocert, letsEncrypt, false, false, false, false, false},
		{"lego4", adopt.Lego, "", false, true, false, true, true},
		{"lego5", adopt.Lego, "", false, true, false, true, true},
		{"certbot", adopt.Certbot, letsEncrypt, true, false, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.tree, func(t *testing.T) {
			dir := unpacked(t, tt.tree)
			s := tt.source(dir)
			if text := s.String(); !strings.Contains(text, dir) {
				t.Errorf("String() = %q; want the folder in it", text)
			}
			pairs, err := s.Find(t.Context(), []string{"example.com"})
			if len(pairs) == 0 || err != nil {
				t.Fatalf("%v, %v", pairs, err)
			}
			p := pairs[0]
			leafOf(t, p, "example.com")
			if p.CA != tt.ca || (p.Account != "") != tt.account || (p.URL != "") != tt.url || (p.Info != nil) != tt.info {
				t.Errorf("%v, account %q, info %v", p, p.Account, p.Info)
			}
			a, err := s.Account(t.Context(), letsEncrypt+"/")
			if a == nil || err != nil {
				t.Fatalf("account %v, %v", a, err)
			}
			if _, err := certpem.DecodeKey([]byte(a.KeyPEM)); err != nil {
				t.Error(err)
			}
			if a.Directory != letsEncrypt+"/" || len(a.Others) > 0 || (a.Location != "") != tt.location || (len(a.Contact) > 0) != tt.contact {
				t.Errorf("%v, contact %q, others %v", a, a.Contact, a.Others)
			}
			if tt.account && a.Location != p.Account {
				t.Errorf("the account is %q, that of the certificate %q", a.Location, p.Account)
			}
			for _, directory := range []string{"https://ca.example/directory", staging, ""} {
				if a, err := s.Account(t.Context(), directory); a != nil || err != nil {
					t.Errorf("account at %q: %v, %v", directory, a, err)
				}
			}
			for _, names := range [][]string{nil, {"none.example.net"}, {"example.com", "none.example.net"}} {
				if pairs, _ := s.Find(t.Context(), names); len(pairs) > 0 {
					t.Errorf("found for %q: %v", names, pairs)
				}
			}
		})
	}
}

func TestFindsWildcardsAndAddresses(t *testing.T) {
	tests := []struct {
		tree   string
		source func(dir string) adopt.Source
		names  []string
	}{
		{"certmagic", adopt.CertMagic, []string{"*.example.org", "sub.example.org", "xn--mnchen-3ya.example.net", "192.0.2.7", "2001:db8::1"}},
		{"lego4", adopt.Lego, []string{"www.example.com", "2001:db8::1"}},
	}
	for _, tt := range tests {
		s := tt.source(unpacked(t, tt.tree))
		for _, name := range tt.names {
			pairs, err := s.Find(t.Context(), []string{name})
			if len(pairs) != 1 || err != nil {
				t.Errorf("%s: %d for %q, %v", tt.tree, len(pairs), name, err)
				continue
			}
			leafOf(t, pairs[0], name)
		}
	}
}

// TestBestGoesFirst puts a certificate for just the names before one for more.
func TestBestGoesFirst(t *testing.T) {
	dir := unpacked(t, "lego5")
	other := unpacked(t, "autocert") // holds example.com alone
	text := string(read(t, filepath.Join(other, "example.com")))
	i := strings.Index(text, "-----BEGIN CERT")
	write(t, filepath.Join(dir, "certificates", "zz.crt"), []byte(text[i:]))
	write(t, filepath.Join(dir, "certificates", "zz.key"), []byte(text[:i]))
	pairs, err := adopt.Lego(dir).Find(t.Context(), []string{"example.com"})
	if len(pairs) != 2 || err != nil {
		t.Fatalf("%v, %v", pairs, err)
	}
	if pairs[0].File != "certificates/zz.crt" || pairs[1].File != "certificates/example.com.crt" {
		t.Errorf("%v; want the one for just the name first", pairs)
	}
}

// TestLegoWithoutBundle completes a leaf with the issuer that lies beside it. F46.
func TestLegoWithoutBundle(t *testing.T) {
	dir := unpacked(t, "lego5")
	chain := filepath.Join(dir, "certificates", "example.com.crt")
	const end = "-----END CERTIFICATE-----\n"
	whole := string(read(t, chain))
	leaf, _, _ := strings.Cut(whole, end)
	write(t, chain, []byte(leaf+end))
	find := func() ([]adopt.Pair, []*adopt.FileError) {
		pairs, err := adopt.Lego(dir).Find(t.Context(), []string{"example.com"})
		return pairs, fileErrors(t, err)
	}
	pairs, bad := find()
	if len(pairs) != 1 || len(bad) > 0 {
		t.Fatalf("%v, %v", pairs, bad)
	}
	leafOf(t, pairs[0], "example.com")

	issuer := filepath.Join(dir, "certificates", "example.com.issuer.crt")
	good := read(t, issuer)
	write(t, issuer, good[:len(good)/2])
	if pairs, bad := find(); len(pairs) > 0 || len(bad) != 1 || !strings.HasSuffix(bad[0].File, ".issuer.crt") {
		t.Errorf("with a damaged issuer: %v, %v", pairs, bad)
	}
	if err := os.Remove(issuer); err != nil {
		t.Fatal(err)
	}
	if pairs, bad := find(); len(pairs) != 1 || len(bad) > 0 || strings.Count(pairs[0].CertPEM, end) != 1 {
		t.Errorf("without an issuer: %v, %v; want the leaf", pairs, bad)
	}
}

// memReader is a Reader in memory that counts its lists.
type memReader struct {
	files map[string]string
	lists int
	err   error
}

func (m *memReader) Load(_ context.Context, key string) ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	value, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(value), nil
}

func (m *memReader) List(_ context.Context, prefix string) ([]string, error) {
	m.lists++
	if m.err != nil {
		return nil, m.err
	}
	keys := slices.Sorted(maps.Keys(m.files))
	return slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix+"/") }), nil
}

// TestListIsKept lists once for many names, again after a while, and again after
// a failure.
func TestListIsKept(t *testing.T) {
	tree, err := txtar.ParseFile(filepath.Join("..", "testdata", "adopt", "certmagic.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	r := &memReader{files: map[string]string{}}
	for _, f := range tree.Files {
		r.files[f.Name] = string(f.Data)
	}
	chain, err := certpem.ParseChain([]byte(r.files["certificates/acme-v02.api.letsencrypt.org-directory/example.com/example.com.crt"]))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(chain[0].NotBefore))
		s := adopt.CertMagicOn(r)
		look := func() (int, []*adopt.FileError) {
			pairs, err := s.Find(t.Context(), []string{"example.com"})
			return len(pairs), fileErrors(t, err)
		}
		r.err = errors.New("down")
		if n, bad := look(); n != 0 || len(bad) != 1 || !bad[0].Unreadable || !errors.Is(bad[0], r.err) {
			t.Errorf("%d, %v of a store that is down", n, bad)
		}
		r.err = nil
		for range 100 {
			if n, bad := look(); n != 1 || len(bad) > 0 {
				t.Fatalf("%d, %v", n, bad)
			}
		}
		if r.lists != 2 {
			t.Errorf("%d lists; want one that failed and one that is kept", r.lists)
		}
		for name := range r.files {
			if strings.Contains(name, "/example.com/") {
				delete(r.files, name)
			}
		}
		if n, bad := look(); n != 0 || len(bad) > 0 {
			t.Errorf("%d, %v of what has gone since it was listed", n, bad)
		}
		time.Sleep(2 * time.Minute)
		if look(); r.lists != 3 {
			t.Errorf("%d lists after a while; want another", r.lists)
		}
	})
}

func TestNothingNamed(t *testing.T) {
	for _, s := range []adopt.Source{adopt.CertMagic(""), adopt.CertMagicOn(nil), adopt.Lego("")} {
		if pairs, err := s.Find(t.Context(), []string{"example.com"}); err == nil || len(pairs) > 0 {
			t.Errorf("%s: %v, %v", s, pairs, err)
		}
	}
}

func TestCertbotTakesTheNewestArchive(t *testing.T) {
	dir := unpacked(t, "certbot")
	archive := filepath.Join(dir, "archive", "copied.example.org")
	for _, part := range []string{"fullchain", "privkey"} {
		write(t, filepath.Join(archive, part+"1.pem"), []byte("stale"))
		write(t, filepath.Join(archive, part+"10.pem"), read(t, filepath.Join(archive, part+"2.pem")))
	}
	pairs, err := adopt.Certbot(dir).Find(t.Context(), []string{"copied.example.org"})
	if len(pairs) != 1 || err != nil || pairs[0].File != "archive/copied.example.org/fullchain10.pem" {
		t.Errorf("%v, %v", pairs, err)
	}
}

// TestKeysAreNotPrinted prints pairs and accounts in all ways.
func TestKeysAreNotPrinted(t *testing.T) {
	s := adopt.CertMagic(unpacked(t, "certmagic"))
	pairs, err := s.Find(t.Context(), []string{"example.com"})
	if err != nil || len(pairs) != 1 {
		t.Fatal(pairs, err)
	}
	a, err := s.Account(t.Context(), letsEncrypt)
	if err != nil {
		t.Fatal(err)
	}
	a.Others = []adopt.Account{*a}
	for _, v := range []any{pairs[0], &pairs[0], pairs, a, *a, struct{ A *adopt.Account }{a}, map[string]any{"x": pairs}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all := string(text) + fmt.Sprint(v)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			all += fmt.Sprintf(verb, v)
		}
		for _, key := range []string{pairs[0].KeyPEM, a.KeyPEM} {
			line := strings.Split(key, "\n")[1]
			if strings.Contains(all, line) || strings.Contains(all, fmt.Sprintf("%x", line)) || strings.Contains(all, "PRIVATE") {
				t.Errorf("%T prints the key:\n%s", v, all)
			}
		}
	}
}
