package certwright_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// failingStore is a storage.Memory whose next stores below a prefix fail.
type failingStore struct {
	*storage.Memory

	mu     sync.Mutex // guards prefix, left
	prefix string
	left   int
}

func (f *failingStore) fail(prefix string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prefix, f.left = prefix, times
}

func (f *failingStore) Store(ctx context.Context, key string, value []byte) error {
	f.mu.Lock()
	fails := f.left > 0 && strings.HasPrefix(key, f.prefix)
	if fails {
		f.left--
	}
	f.mu.Unlock()
	if fails {
		return errors.New("disk full")
	}
	return f.Memory.Store(ctx, key, value)
}

// TestStoreThatFailsTenTimesCostsNoSecondOrder lets the storage fail ten times at each part of an issue
// and of a renewal: the old certificate is served on, the trouble is shown, and
// there is one order in the end. (S19)
func TestStoreThatFailsTenTimesCostsNoSecondOrder(t *testing.T) {
	for _, prefix := range []string{keyCerts, keyOrders, keyHolds, "v1"} {
		for _, renewal := range []bool{false, true} {
			name := prefix + "/issue"
			if renewal {
				name = prefix + "/renewal"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{NoARI: true})
					store := &failingStore{Memory: storage.NewMemory()}
					conf.Storage = store
					conf.Issuers = append(conf.Issuers, secondFake(t))
					m := start(t, conf)
					orders := 1
					if renewal {
						manage(t, m, "a.example.com")
						time.Sleep(59 * day)
						orders++
					}
					store.fail(prefix, 10)
					_ = m.ManageAsync([]string{"a.example.com"})
					time.Sleep(12 * time.Hour)
					if renewal {
						time.Sleep(4 * day)
					}
					if leaf := mustLeaf(t, m, "a.example.com"); time.Until(leaf.NotAfter) < 80*day {
						t.Errorf("served until %v", leaf.NotAfter)
					}
					if n := ca.Count("newOrder"); n != orders {
						t.Errorf("%d orders; want %d", n, orders)
					}
					if s := statusFor(t, m, "a.example.com"); s.State != StateValid || s.LastError != "" {
						t.Errorf("status = %+v; want valid in the end", s)
					}
				})
			})
		}
	}
}

// secondFake is an issuer that nobody should come to.
func secondFake(t *testing.T) Issuer {
	t.Helper()
	ca, _ := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "second")})
	t.Cleanup(func() {
		if n := ca.Count("newOrder"); n != 0 {
			t.Errorf("%d orders at the second CA for a fault of storage", n)
		}
	})
	return issuerAt(ca)
}

// TestWhatIsOfNoUseInStorageIsReplaced starts with what is expired or damaged.
// (S20)
func TestWhatIsOfNoUseInStorageIsReplaced(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s *storage.Memory, key string){
		"expired": func(*testing.T, *storage.Memory, string) { time.Sleep(91 * day) },
		"empty":   func(t *testing.T, s *storage.Memory, key string) { mustStore(t, s, key, nil) },
		"garbage": func(t *testing.T, s *storage.Memory, key string) { mustStore(t, s, key, []byte("\x00\x01garbage")) },
		"truncated": func(t *testing.T, s *storage.Memory, key string) {
			value := mustLoad(t, s, key)
			mustStore(t, s, key, value[:len(value)/2])
		},
		"wrong key": func(t *testing.T, s *storage.Memory, key string) {
			value := mustLoad(t, s, key)
			at := bytes.Index(value, []byte("-----BEGIN PRIVATE KEY-----"))
			mustStore(t, s, key, append(value[:at], rsaKeyPEM(t)...))
		},
		"no chain": func(t *testing.T, s *storage.Memory, key string) {
			value := mustLoad(t, s, key)
			from, to := bytes.Index(value, []byte("-----BEGIN CERTIFICATE-----")), bytes.Index(value, []byte("-----BEGIN PRIVATE KEY-----"))
			mustStore(t, s, key, slices.Delete(value, from, to))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				store := conf.Storage.(*storage.Memory)
				m := start(t, conf)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				closeManager(t, m)
				spoil(t, store, certKey("a.example.com"))
				m = start(t, conf)
				manage(t, m, "a.example.com")
				if leaf := mustLeaf(t, m, "a.example.com"); leaf.Equal(first) || !time.Now().Before(leaf.NotAfter) {
					t.Error("not served a new certificate")
				}
				if n := ca.Count("newOrder"); n != 2 {
					t.Errorf("%d orders; want 2", n)
				}
			})
		})
	}
}

func rsaKeyPEM(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestFilesGoneBehindTheServer deletes everything while the Manager runs. (S22)
func TestFilesGoneBehindTheServer(t *testing.T) {
	for _, prefix := range []string{keyCerts, keyAccounts, "v1"} {
		t.Run(prefix, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				m := start(t, conf)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				synctest.Wait()
				keys, err := conf.Storage.List(t.Context(), prefix)
				if err != nil || len(keys) == 0 {
					t.Fatalf("stored are %v, %v", keys, err)
				}
				for _, k := range keys {
					if err := conf.Storage.Delete(t.Context(), k); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(70 * day)
				if mustLeaf(t, m, "a.example.com").Equal(first) {
					t.Error("the certificate was not renewed")
				}
				if n := ca.Count("newOrder"); n != 2 {
					t.Errorf("%d orders; want 2", n)
				}
				if s := statusFor(t, m, "a.example.com"); s.State != StateValid {
					t.Errorf("status = %+v", s)
				}
			})
		})
	}
}
