package adopt

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"*.example.com", "a+b", "2001:db8::1", "....", ".. ..", "Ünï", "\xff", "a.\x00.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := safe(s)
		if strings.ContainsAny(got, "/\\:* +,") || strings.ToLower(got) != got {
			t.Errorf("safe(%q) = %q", s, got)
		}
	})
}

// fuzzFile puts fuzzed text in the place of one file of a fixture and looks for
// everything: nothing panics, every file error names a file, and what is found
// is a whole pair for the name.
func fuzzFile(f *testing.F, tree string, layout Layout, suffix string) {
	whole := fixture(f, tree)
	file := ""
	for name, text := range whole.files {
		if strings.HasSuffix(name, suffix) {
			file = name
			f.Add([]byte(text))
			f.Add([]byte(text[:len(text)/2]))
		}
	}
	if file == "" {
		f.Fatalf("no file ends in %q", suffix)
	}
	f.Add([]byte("<html>"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &mapTree{files: map[string]string{}}
		for name, text := range whole.files {
			m.files[name] = text
		}
		m.files[file] = string(text)
		r := reader(layout, m)
		q := Query{Names: []string{"example.com"}, CAs: []string{letsEncrypt}, Now: time.Now()}
		certs, errs := r.Certificates(t.Context(), q)
		for _, c := range certs {
			if !slices.Contains(certpem.Names(c.Chain[0]), "example.com") || !certpem.Match(c.Chain[0].PublicKey, c.Key.Public()) {
				t.Errorf("%q is not a certificate for the name and the key", c.File)
			}
		}
		accounts, more := r.Accounts(t.Context(), letsEncrypt)
		for _, a := range accounts {
			if a.Key == nil || a.File == "" {
				t.Errorf("account %+v", a)
			}
		}
		for _, e := range append(errs, more...) {
			if e.File == "" || e.Unreadable || e.Err == nil {
				t.Errorf("error %+v", e)
			}
		}
	})
}

func FuzzCertMagicChain(f *testing.F) {
	fuzzFile(f, "certmagic", CertMagic, "/example.com/example.com.crt")
}

func FuzzCertMagicKey(f *testing.F) {
	fuzzFile(f, "certmagic", CertMagic, "/example.com/example.com.key")
}

func FuzzCertMagicMeta(f *testing.F) {
	fuzzFile(f, "certmagic", CertMagic, "/example.com/example.com.json")
}

func FuzzCertMagicAccount(f *testing.F)   { fuzzFile(f, "certmagic", CertMagic, "me_plus_tag.json") }
func FuzzAutocert(f *testing.F)           { fuzzFile(f, "autocert", Autocert, "example.com") }
func FuzzAutocertAccount(f *testing.F)    { fuzzFile(f, "autocert", Autocert, "acme_account+key") }
func FuzzLegoMeta(f *testing.F)           { fuzzFile(f, "lego5", Lego, "/example.com.json") }
func FuzzLegoAccount(f *testing.F)        { fuzzFile(f, "lego5", Lego, "account.json") }
func FuzzLegoAccountBefore5(f *testing.F) { fuzzFile(f, "lego4", Lego, "account.json") }
func FuzzCertbotConf(f *testing.F)        { fuzzFile(f, "certbot", Certbot, "/example.com.conf") }
func FuzzCertbotKey(f *testing.F)         { fuzzFile(f, "certbot", Certbot, "private_key.json") }
func FuzzCertbotAccount(f *testing.F)     { fuzzFile(f, "certbot", Certbot, "regr.json") }
