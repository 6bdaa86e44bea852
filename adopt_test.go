package certwright_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// unpack writes a tree of testdata/adopt into a folder of the test's own.
func unpack(t testing.TB, name string) string {
	t.Helper()
	tree, err := txtar.ParseFile(filepath.Join("testdata", "adopt", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range tree.Files {
		name, target, link := strings.Cut(f.Name, " -> ")
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if link {
			err = os.Symlink(filepath.FromSlash(target), file)
		} else {
			err = os.WriteFile(file, f.Data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// everythingIn returns everything in a folder.
func everythingIn(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out.WriteString(path + " " + info.Mode().String() + "\n")
		if info.Mode().IsRegular() {
			out.WriteString(info.ModTime().String() + "\n")
			data, err := os.ReadFile(path)
			out.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// fixtureTime is when the certificates in testdata/adopt have been valid for a day.
func fixtureTime(t testing.TB) time.Time {
	t.Helper()
	tree, err := txtar.ParseFile(filepath.Join("testdata", "adopt", "autocert.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := certpem.ParseChain(fileOf(t, tree, "example.com"))
	if err != nil {
		t.Fatal(err)
	}
	return chain[0].NotBefore.Add(day)
}

func fileOf(t testing.TB, tree *txtar.Archive, name string) []byte {
	t.Helper()
	for _, f := range tree.Files {
		if f.Name == name {
			return f.Data
		}
	}
	t.Fatalf("no file %q", name)
	return nil
}

// newFakeLetsEncrypt returns a CA that passes for the one that issued the
// certificates in testdata/adopt, and moves the bubble's clock to their time.
func newFakeLetsEncrypt(t testing.TB) (*fakeca.CA, Config) {
	t.Helper()
	time.Sleep(time.Until(fixtureTime(t)))
	ca, conf := newFake(t, fakeca.Options{
		BaseURL: strings.TrimSuffix(LetsEncrypt, "/directory"), Profiles: map[string]time.Duration{"shortlived": 6 * day},
	})
	iss := issuerAt(ca)
	iss.Solvers = map[string]Solver{"dns-01": noSolver{}}
	conf.Issuers, conf.Profile, conf.Email = []Issuer{iss}, "shortlived", "me+tag@Example.com"
	return ca, conf
}

// openAccount makes an account for a key at ca and returns its URL.
func openAccount(t testing.TB, ca *fakeca.CA, conf Config, key []byte) string {
	t.Helper()
	signer, err := certpem.DecodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := certpem.EncodeKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	id := conf.Issuers[0].ID()
	conf.Storage, conf.Adopt = storage.NewMemory(), nil
	if err := recordsOn(conf.Storage).StoreAccount(t.Context(), id, &records.Account{Directory: ca.Directory(), KeyPEM: string(pem)}); err != nil {
		t.Fatal(err)
	}
	m := start(t, conf)
	manage(t, m, "first.example.net")
	return accountIn(t, conf.Storage, id).Location
}

func accountIn(t testing.TB, s Storage, id string) *records.Account {
	t.Helper()
	a, err := recordsOn(s).LoadAccount(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// autocertIn is the source of an autocert that used Let's Encrypt.
func autocertIn(dir string) adopt.Source { return adopt.Autocert(dir, "") }

// sourceTest is a store of testdata/adopt to be taken over.
type sourceTest struct {
	tree    string
	source  func(dir string) adopt.Source
	names   []string
	account string // the file with its key; empty for certbot's
}

// TestAdopt takes over a store of each client: no order for the names in it, the
// same account for what is issued later, and a source that stays as it was.
func TestAdopt(t *testing.T) {
	tests := []sourceTest{
		{
			"certmagic",
			adopt.CertMagic,
			[]string{"example.com", "*.example.org", "sub.example.org", "rsa.example.com", "münchen.example.net", "192.0.2.7", "2001:db8::1"},
			"acme/acme-v02.api.letsencrypt.org-directory/users/me_plus_tag@example.com/me_plus_tag.key",
		},
		{"autocert", autocertIn, []string{"example.com", "www.example.com"}, "acme_account+key"},
		{
			"lego4",
			adopt.Lego,
			[]string{"example.com", "www.example.com", "2001:db8::1"},
			"accounts/acme-v02.api.letsencrypt.org/me+tag@Example.com/keys/me+tag@Example.com.key",
		},
		{
			"lego5",
			adopt.Lego,
			[]string{"example.com", "www.example.com", "api.example.org"},
			"accounts/acme-v02.api.letsencrypt.org/me+tag@Example.com/me+tag@Example.com.key",
		},
		{"certbot", adopt.Certbot, []string{"example.com", "www.example.com", "copied.example.org"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.tree, func(t *testing.T) { synctest.Test(t, tt.run) })
	}
}

func (tt sourceTest) run(t *testing.T) {
	ca, conf := newFakeLetsEncrypt(t)
	dir := unpack(t, tt.tree)
	location := openAccount(t, ca, conf, accountKeyIn(t, dir, tt.account))
	orders, accounts, asked := ca.Count("newOrder"), ca.Accounts(), len(ca.Requests("newAccount"))
	before := everythingIn(t, dir)

	events := &eventLog{}
	conf.Adopt, conf.OnEvent = []adopt.Source{tt.source(dir)}, events.add
	logger, logs := observed(slog.LevelWarn)
	conf.Logger = logger
	m := start(t, conf)
	manage(t, m, tt.names...)
	for _, s := range m.Status() {
		if s.Issuer != conf.Issuers[0].ID() || s.NotAfter.IsZero() {
			t.Errorf("status of %q: %+v", s.Name, s)
		}
	}
	synctest.Wait()
	if n := ca.Count("newOrder") - orders; n != 0 {
		t.Errorf("%d orders for adopted names; want none", n)
	}
	if n := events.count(EventAdopted); n != len(tt.names) {
		t.Errorf("%d events; want one for each of %d names: %v", n, len(tt.names), events.kinds(""))
	}
	if logs.Len() > 0 {
		t.Errorf("warnings: %v", logs.All())
	}
	if err := m.Renew(t.Context(), tt.names[0]); err != nil {
		t.Fatal(err)
	}
	manage(t, m, "new.example.net")
	if got := accountIn(t, conf.Storage, conf.Issuers[0].ID()); got.Location != location || ca.Accounts() != accounts {
		t.Errorf("account %q, %d new ones; want %q and none", got.Location, ca.Accounts()-accounts, location)
	}
	for _, r := range ca.Requests("newAccount")[asked:] {
		if !strings.Contains(string(r.Payload), `"onlyReturnExisting":true`) {
			t.Errorf("the CA is asked for an account with %s", r.Payload)
		}
	}
	if after := everythingIn(t, dir); after != before {
		t.Errorf("the source has changed")
	}
}

// accountKeyIn returns the account key in a file, or certbot's, in PEM.
func accountKeyIn(t testing.TB, dir, file string) []byte {
	t.Helper()
	if file != "" {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	acct, err := adopt.Certbot(dir).Account(t.Context(), LetsEncrypt)
	if err != nil || acct == nil {
		t.Fatalf("account %v, %v", acct, err)
	}
	return []byte(acct.KeyPEM)
}
