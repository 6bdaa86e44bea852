package certwright_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/certwright/certwright/storage/plugin"
)

// TestAdoptRenewalInfo takes over what CertMagic knew of the CA's window, for
// when the CA says nothing now.
func TestAdoptRenewalInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFakeLetsEncrypt(t)
		ca.On(fakeca.Rule{Endpoint: "renewalInfo", Problem: fakeca.NewProblem("serverInternal", 500, "not today")})
		conf.Adopt = []adopt.Source{adopt.CertMagic(unpack(t, "certmagic"))}
		m := start(t, conf)
		manage(t, m, "example.com")
		time.Sleep(10 * time.Minute) // in which the CA is asked in vain
		synctest.Wait()
		leaf := mustLeaf(t, m, "example.com")
		s := statusFor(t, m, "example.com")
		life := leaf.NotAfter.Sub(leaf.NotBefore)
		if want := leaf.NotBefore.Add(life * 2 / 3); s.WindowStart.Sub(want).Abs() > day || !s.WindowStart.Before(s.WindowEnd) {
			t.Errorf("window %v to %v; want it to start at %v", s.WindowStart, s.WindowEnd, want)
		}
		if s.RenewAt.Before(s.WindowStart) || s.RenewAt.After(s.WindowEnd) {
			t.Errorf("renewal at %v, outside of the window %v to %v", s.RenewAt, s.WindowStart, s.WindowEnd)
		}
	})
}

func keyTypeOf(t testing.TB, leaf *x509.Certificate) KeyType {
	t.Helper()
	kind, ok := certpem.TypeOf(leaf.PublicKey)
	if !ok {
		t.Fatalf("a key of unknown type: %T", leaf.PublicKey)
	}
	return KeyType(kind)
}

// storedAs returns the bundle for example.com with a key of a type.
func storedAs(t testing.TB, s Storage, kind KeyType) records.Stored {
	t.Helper()
	b, err := recordsOn(s).LoadBundle(t.Context(), records.ID([]string{"example.com"}, kind), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAdoptKeyTypes takes a certificate with another key than configured where a
// name has one, and the right one for each where it has several.
func TestAdoptKeyTypes(t *testing.T) {
	tests := []struct {
		name   string
		tree   string
		source func(dir string) adopt.Source
		types  []KeyType
		want   []KeyType
		orders int
	}{
		{"both", "autocert", autocertIn, []KeyType{P256, RSA2048}, []KeyType{P256, RSA2048}, 0},
		{"another", "lego5", adopt.Lego, []KeyType{P256}, []KeyType{P384}, 0},
		{"the second", "autocert", autocertIn, []KeyType{RSA2048}, []KeyType{RSA2048}, 0},
		{"only RSA is there", "certbot", adopt.Certbot, []KeyType{P256, RSA2048}, []KeyType{P256, RSA2048}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFakeLetsEncrypt(t)
				conf.KeyTypes = tt.types
				conf.Adopt = []adopt.Source{tt.source(unpack(t, tt.tree))}
				m := start(t, conf)
				manage(t, m, "example.com")
				if n := ca.Count("newOrder"); n != tt.orders {
					t.Errorf("%d orders; want %d", n, tt.orders)
				}
				for i, id := range tt.types {
					if got := storedAs(t, conf.Storage, tt.want[i]); got.KeyType() != tt.want[i] {
						t.Errorf("key type %q for %q; want %q", got.KeyType(), id, tt.want[i])
					}
				}
				closeManager(t, m)
				conf.Adopt = nil
				m = start(t, conf)
				manage(t, m, "example.com")
				time.Sleep(time.Hour)
				if n := ca.Count("newOrder"); n != tt.orders {
					t.Errorf("%d orders after another start; want %d", n, tt.orders)
				}
				if err := m.Renew(t.Context(), "example.com"); err != nil {
					t.Fatal(err)
				}
				if got := keyTypeOf(t, mustLeaf(t, m, "example.com")); got != tt.types[0] {
					t.Errorf("key type %q after the renewal; want %q", got, tt.types[0])
				}
			})
		})
	}
}

// downStorage fails its first calls.
type downStorage struct {
	Storage
	fails atomic.Int32
}

var errDown = errors.New("the server is down")

func (s *downStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if s.fails.Add(-1) >= 0 {
		return nil, errDown
	}
	return s.Storage.Load(ctx, key)
}

func (s *downStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if s.fails.Add(-1) >= 0 {
		return nil, errDown
	}
	return s.Storage.List(ctx, prefix)
}

// memTree puts a tree of testdata/adopt into a storage.
func memTree(t testing.TB, name string, s Storage) {
	t.Helper()
	tree, err := txtar.ParseFile(filepath.Join("testdata", "adopt", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tree.Files {
		if err := s.Store(t.Context(), f.Name, f.Data); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdoptWaitsForAnUnreadableSource tries a source again before it orders, and
// orders when the source stays away.
func TestAdoptWaitsForAnUnreadableSource(t *testing.T) {
	for _, tt := range []struct {
		name          string
		fails, orders int
	}{{"comes back", 1, 0}, {"stays away", 1 << 20, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFakeLetsEncrypt(t)
				src := &downStorage{Storage: storage.NewMemory()}
				memTree(t, "certmagic", src)
				src.fails.Store(int32(tt.fails))
				conf.Adopt = []adopt.Source{adopt.CertMagicOn(src)}
				m := start(t, conf)
				if err := m.ManageSync(t.Context(), []string{"example.com"}); !errors.Is(err, errDown) {
					t.Errorf("the first try: %v; want the source's error", err)
				}
				if n := ca.Count("newOrder"); n != 0 {
					t.Errorf("%d orders although the source may come back", n)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				if err := m.Wait(ctx, "example.com"); err != nil {
					t.Fatal(err)
				}
				if n := ca.Count("newOrder"); n != tt.orders {
					t.Errorf("%d orders; want %d", n, tt.orders)
				}
			})
		})
	}
}

// stuckStorage never answers.
type stuckStorage struct{ Storage }

func (stuckStorage) List(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAdoptFromAStuckSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFakeLetsEncrypt(t)
		conf.Adopt = []adopt.Source{adopt.CertMagicOn(stuckStorage{storage.NewMemory()})}
		m := start(t, conf)
		if err := m.ManageAsync([]string{"example.com"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		if err := m.Wait(ctx, "example.com"); err != nil {
			t.Error(err)
		}
	})
}

// TestAdoptOwnGoesFirst asks a source only for what is not stored already.
func TestAdoptOwnGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFakeLetsEncrypt(t)
		m := start(t, conf)
		manage(t, m, "example.com")
		own := mustLeaf(t, m, "example.com")
		closeManager(t, m)
		orders := ca.Count("newOrder")

		conf.Adopt = []adopt.Source{adopt.Autocert(unpack(t, "autocert"), "")}
		m = start(t, conf)
		manage(t, m, "example.com")
		if !mustLeaf(t, m, "example.com").Equal(own) {
			t.Error("the source's certificate hides our own")
		}
		closeManager(t, m)

		time.Sleep(time.Until(own.NotAfter.Add(time.Hour)))
		m = start(t, conf)
		manage(t, m, "example.com")
		if leaf := mustLeaf(t, m, "example.com"); leaf.Equal(own) || ca.Count("newOrder") != orders {
			t.Error("our own has expired and the source's is not taken")
		}
	})
}

// TestAdoptOfOtherIssuers judges certificates of CAs that are not in use.
func TestAdoptOfOtherIssuers(t *testing.T) {
	tests := []struct {
		name, segment, ca string
		orders            int
	}{
		{"another CA", "acme.zerossl.com-v2-dv90", "https://acme.zerossl.com/v2/DV90", 0},
		{"another kind of issuer", "zerossl", "", 0},
		{"a CA for tests", "acme-staging-v02.api.letsencrypt.org-directory", LetsEncryptStaging, 1},
		{"Caddy's internal CA", "local", "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFakeLetsEncrypt(t)
				dir := unpack(t, "certmagic")
				certs := filepath.Join(dir, "certificates")
				if err := os.Rename(filepath.Join(certs, "acme-v02.api.letsencrypt.org-directory"), filepath.Join(certs, tt.segment)); err != nil {
					t.Fatal(err)
				}
				meta := filepath.Join(certs, tt.segment, "example.com", "example.com.json")
				mustWrite(t, meta, []byte(strings.Replace(string(mustRead(t, meta)), LetsEncrypt, tt.ca, 1)))
				conf.Adopt = []adopt.Source{adopt.CertMagic(dir)}
				m := start(t, conf)
				manage(t, m, "example.com")
				if n := ca.Count("newOrder"); n != tt.orders {
					t.Errorf("%d orders; want %d", n, tt.orders)
				}
				b := storedFor(t, conf.Storage, "example.com")
				if b.Account() != conf.Issuers[0].ID() || tt.orders == 0 && b.Data != nil {
					t.Errorf("issuer %q, data %q; want the first, which knows nothing of it", b.Account(), b.Data)
				}
			})
		})
	}
}

// treePlugin is a CertMagic plugin in memory that lists folders too.
type treePlugin struct {
	*storage.Memory
	leases *sync.Map // Lease by name of the lock
}

func (p treePlugin) Lock(ctx context.Context, name string) error {
	l, err := p.Memory.Lock(ctx, name)
	p.leases.Store(name, l)
	return err
}

func (p treePlugin) Unlock(ctx context.Context, name string) error {
	l, _ := p.leases.Load(name)
	return l.(Lease).Unlock(ctx)
}

func (p treePlugin) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	keys, err := p.Memory.List(ctx, prefix)
	for i, key := range keys {
		if first, _, more := strings.Cut(key[len(prefix)+1:], "/"); more && !recursive {
			keys[i] = prefix + "/" + first
		}
	}
	return slices.Compact(keys), err
}

func (p treePlugin) Exists(ctx context.Context, key string) bool {
	_, err := p.Load(ctx, key)
	return err == nil
}

// TestAdoptInPlace uses a CertMagic plugin both as the storage and as the source.
func TestAdoptInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFakeLetsEncrypt(t)
		p := treePlugin{storage.NewMemory(), new(sync.Map)}
		tree, err := txtar.ParseFile(filepath.Join("testdata", "adopt", "certmagic.txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range tree.Files {
			mustStore(t, p.Memory, f.Name, f.Data)
		}
		own := plugin.CertMagic(p)
		conf.Storage, conf.Adopt = own, []adopt.Source{adopt.CertMagicOn(own.Raw())}
		conf.Issuers[0].(*ACME).OrderLimit = OrderLimit{Orders: 1, Per: 24 * time.Hour} // adopting takes no turn
		for range 2 {
			m := start(t, conf)
			manage(t, m, "example.com", "*.example.org", "2001:db8::1")
			closeManager(t, m)
		}
		if n := ca.Count("newOrder"); n != 0 {
			t.Errorf("%d orders; want none", n)
		}
		for _, f := range tree.Files {
			if string(mustLoad(t, p.Memory, f.Name)) != string(f.Data) {
				t.Errorf("%q has changed", f.Name)
			}
		}
		keys, err := own.List(t.Context(), "")
		if err != nil || len(keys) < 3 {
			t.Errorf("keys of our own: %q, %v", keys, err)
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, "v1/") {
				t.Errorf("%q is listed among our own", key)
			}
		}
	})
}

func TestAdoptMissingFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFakeLetsEncrypt(t)
		logger, logs := observed(slog.LevelWarn)
		conf.Logger = logger
		for _, source := range []func(string) adopt.Source{adopt.CertMagic, autocertIn, adopt.Lego, adopt.Certbot} {
			conf.Adopt = append(conf.Adopt, source(filepath.Join(t.TempDir(), "none")))
		}
		m := start(t, conf)
		manage(t, m, "example.com")
		if ca.Count("newOrder") != 1 || logs.Len() != 4 {
			t.Errorf("%d orders, warnings %v; want one, and a warning each", ca.Count("newOrder"), logs.All())
		}
	})
}

func TestAdoptRefusesANilSource(t *testing.T) {
	_, conf := newFake(t, fakeca.Options{})
	conf.Adopt = []adopt.Source{adopt.Lego("x"), nil}
	_, err := New(conf)
	var ce *ConfigError
	if !errors.As(err, &ce) || ce.Field != "Config.Adopt[1]" {
		t.Errorf("%v; want an error for Config.Adopt[1]", err)
	}
}
