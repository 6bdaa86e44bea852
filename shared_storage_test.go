package certwright_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// An expired certificate of the preferred issuer does not hide the fresh one
// of the second, and an instance whose certificate is due looks into storage
// before it orders. (C3)
func TestStorageDecidesWhatIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example.com"
		first, conf := newFake(t, fakeca.Options{DefaultLifetime: 10 * day})
		second, other := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "second")})
		conf.Issuers = append(conf.Issuers, other.Issuers...)

		m := start(t, conf)
		manage(t, m, name)
		closeManager(t, m)
		time.Sleep(12 * day) // nobody was there to renew
		first.Down(nil)
		m = start(t, conf)
		manage(t, m, name)
		want := mustLeaf(t, m, name).SerialNumber
		closeManager(t, m)
		first.Up()

		m = start(t, conf)
		manage(t, m, name)
		if got := mustLeaf(t, m, name); got.SerialNumber.Cmp(want) != 0 {
			t.Errorf("serial %x is served, want %x of the second issuer", got.SerialNumber, want)
		}
		peer := start(t, conf)
		manage(t, peer, name)
		orders := len(first.Orders()) + len(second.Orders())
		if orders != 2 {
			t.Errorf("%d orders, want one of each issuer", orders)
		}
		time.Sleep(80 * day) // one renewal is due in this time
		synctest.Wait()
		if got := len(first.Orders()) + len(second.Orders()) - orders; got < 1 || got > 10 {
			t.Fatalf("%d orders in 80 days", got)
		}
		a, b := mustLeaf(t, m, name), mustLeaf(t, peer, name)
		if certs := len(first.Certificates()) + len(second.Certificates()); certs != len(first.Orders())+len(second.Orders()) {
			t.Errorf("%d certificates for %d orders", certs, len(first.Orders())+len(second.Orders()))
		}
		if !time.Now().Before(a.NotAfter) || !time.Now().Before(b.NotAfter) {
			t.Errorf("certificates until %v and %v are served at %v", a.NotAfter, b.NotAfter, time.Now())
		}
	})
}

// writes keeps what is stored below certs/.
type writes struct {
	*storage.Memory
	mu   sync.Mutex // guards list
	list [][]byte
}

func (w *writes) Store(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, keyCerts+"/") {
		w.mu.Lock()
		w.list = append(w.list, append([]byte(nil), value...))
		w.mu.Unlock()
	}
	return w.Memory.Store(ctx, key, value)
}

// A certificate reaches storage in one write that holds the whole pair, so that
// there is no moment between key and chain to crash in. (S16)
func TestPairIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example.com"
		_, conf := newFake(t, fakeca.Options{})
		storage := &writes{Memory: storage.NewMemory()}
		conf.Storage = storage
		m := start(t, conf)
		manage(t, m, name)
		for range 2 {
			if err := m.Renew(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		storage.mu.Lock()
		defer storage.mu.Unlock()
		if len(storage.list) != 3 {
			t.Fatalf("%d writes for three certificates", len(storage.list))
		}
		for i, value := range storage.list {
			mustStore(t, storage.Memory, certKey(name), value)
			if b := storedFor(t, storage.Memory, name); b.Mended != nil || !isPair(b.Bundle) {
				t.Errorf("write %d is no whole pair: %v", i, b.Mended)
			}
		}
	})
}
