package adopt_test

import (
	"strings"
	"testing"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

// fuzzFile puts fuzzed text in the place of one file of a store and looks for
// everything: nothing panics, every error names a file, and what is found is a
// whole pair for the name.
func fuzzFile(f *testing.F, tree string, source func(dir string) adopt.Source, suffix string) {
	dir := unpacked(f, tree)
	file := fileWith(f, dir, suffix)
	whole := read(f, file)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("<html>"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		write(t, file, text)
		s := source(dir)
		pairs, err := s.Find(t.Context(), []string{"example.com"})
		for _, p := range pairs {
			chain, err := certpem.ParseChain([]byte(p.CertPEM))
			if err != nil {
				t.Fatal(err)
			}
			key, err := certpem.DecodeKey([]byte(p.KeyPEM))
			if err != nil {
				t.Fatal(err)
			}
			if err := certpem.Verify(chain, key.Public(), []string{"example.com"}); err != nil {
				t.Error(err)
			}
		}
		a, more := s.Account(t.Context(), letsEncrypt)
		if a != nil && (a.KeyPEM == "" || a.File == "" || a.Directory != letsEncrypt) {
			t.Errorf("account %v", a)
		}
		for _, bad := range append(fileErrors(t, err), fileErrors(t, more)...) {
			if bad.Unreadable || strings.Contains(bad.Error(), "PRIVATE KEY") {
				t.Errorf("error %v", bad)
			}
		}
	})
}

func FuzzCertMagicChain(f *testing.F) {
	fuzzFile(f, "certmagic", adopt.CertMagic, "/example.com/example.com.crt")
}

func FuzzCertMagicKey(f *testing.F) {
	fuzzFile(f, "certmagic", adopt.CertMagic, "/example.com/example.com.key")
}

func FuzzCertMagicMeta(f *testing.F) {
	fuzzFile(f, "certmagic", adopt.CertMagic, "/example.com/example.com.json")
}

func FuzzCertMagicAccount(f *testing.F) {
	fuzzFile(f, "certmagic", adopt.CertMagic, "me_plus_tag.json")
}
func FuzzAutocert(f *testing.F)           { fuzzFile(f, "autocert", autocert, "/example.com") }
func FuzzAutocertAccount(f *testing.F)    { fuzzFile(f, "autocert", autocert, "acme_account+key") }
func FuzzLegoMeta(f *testing.F)           { fuzzFile(f, "lego5", adopt.Lego, "/example.com.json") }
func FuzzLegoAccount(f *testing.F)        { fuzzFile(f, "lego5", adopt.Lego, "account.json") }
func FuzzLegoAccountBefore5(f *testing.F) { fuzzFile(f, "lego4", adopt.Lego, "account.json") }
func FuzzCertbotConf(f *testing.F)        { fuzzFile(f, "certbot", adopt.Certbot, "/example.com.conf") }

func FuzzCertbotKey(f *testing.F)     { fuzzFile(f, "certbot", adopt.Certbot, "private_key.json") }
func FuzzCertbotAccount(f *testing.F) { fuzzFile(f, "certbot", adopt.Certbot, "regr.json") }
