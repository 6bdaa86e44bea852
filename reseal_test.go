package certwright_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// sealedWith seals s with keys that are made of these bytes; what is not sealed is
// accepted when the last one is 0.
func sealedWith(t *testing.T, s Storage, fill ...byte) Storage {
	t.Helper()
	var o storage.SealOptions
	for _, b := range fill {
		if b == 0 {
			o.AcceptUnsealed = true
			continue
		}
		key, err := storage.NewSealKey(bytes.Repeat([]byte{b}, storage.SealKeySize))
		if err != nil {
			t.Fatal(err)
		}
		o.Keys = append(o.Keys, key)
	}
	out, err := storage.Seal(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// storageAround is a caller's Storage around another one, which says so.
type storageAround struct{ Storage }

func (s storageAround) Unwrap() Storage { return s.Storage }

// TestResealEndsTheUseOfAKey changes keys, and goes from none to some, with records
// of every kind there: once Reseal has left nothing, the old key is not missed, by
// the account either, which is stored once and never again. (F40)
func TestResealEndsTheUseOfAKey(t *testing.T) {
	tests := map[string]struct{ before, both, after []byte }{
		"another key":    {[]byte{1}, []byte{2, 1}, []byte{2}},
		"plain before":   {nil, []byte{2, 0}, []byte{2}},
		"two keys ago":   {[]byte{1}, []byte{3, 2, 1}, []byte{3}},
		"back to an old": {[]byte{2, 1}, []byte{1, 2}, []byte{1}},
	}
	for name, tt := range tests {
		for _, byCleaning := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRecordRig(t)
					if tt.before != nil {
						r.conf.Storage = sealedWith(t, r.mem, tt.before...)
					}
					r.fill(keyOrders)
					time.Sleep(10 * time.Minute)
					r.fill(keyCerts)
					r.conf.Storage = storageAround{sealedWith(t, r.mem, tt.both...)}
					if byCleaning {
						r.conf.CleanInterval = time.Hour
						r.start()
						time.Sleep(2 * time.Hour)
					} else if left, err := r.start().Reseal(t.Context()); left != 0 || err != nil {
						t.Fatalf("Reseal: %d left, %v", left, err)
					}
					orders := len(r.ca.Orders())
					r.conf.Storage, r.conf.CleanInterval = sealedWith(t, r.mem, tt.after...), -1
					r.conf.Issuers = []Issuer{issuerAt(r.ca)}
					m := r.start()
					manage(t, m, "a.test", "b.test")
					if n := len(r.ca.Orders()); n != orders {
						t.Errorf("%d orders for what was stored", n-orders)
					}
					manage(t, m, "c.test")
					if n := r.ca.Accounts(); n != 1 {
						t.Errorf("%d accounts", n)
					}
					for _, key := range keysOf(t, r.mem) {
						if _, err := r.conf.Storage.Load(t.Context(), key); err != nil {
							t.Error(err)
						}
					}
				})
			})
		}
	}
}

// TestResealSaysWhatIsLeft has some records that cannot be sealed anew: they are
// counted and named, the others are done, and a round of cleaning comes to its end.
// (F40)
func TestResealSaysWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecordRig(t)
		r.conf.Storage = sealedWith(t, r.mem, 1)
		a, b := r.fill(keyCerts)
		unknown := keyStaples + "/x.test+p256"
		mustStore(t, sealedWith(t, r.mem, 9), unknown, []byte("x"))
		held, err := r.mem.Lock(t.Context(), "issue/"+strings.TrimSuffix(strings.TrimPrefix(b, keyCerts+"/"), ".pem"))
		if err != nil {
			t.Fatal(err)
		}
		value := mustLoad(t, r.mem, a)
		value[len(value)/2] ^= 1
		mustStore(t, r.mem, a, value)
		r.conf.Storage = sealedWith(t, r.mem, 2, 1)
		m := r.start()
		left, err := m.Reseal(t.Context())
		if left != 3 || !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%d left, %v", left, err)
		}
		for _, key := range []string{a, b, unknown} {
			if err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%v\ndoes not name %q", err, key)
			}
		}
		if err := held.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := m.Reseal(t.Context()); left != 2 || strings.Contains(err.Error(), b) {
			t.Errorf("once the lease is free %d are left, %v", left, err)
		}
		if err := r.mem.Delete(t.Context(), unknown); err != nil {
			t.Fatal(err)
		}
		closeManager(t, m)
		lost := keyChallenges + "/http-01+0123"
		mustStore(t, r.mem, lost, []byte("not sealed"))
		r.conf.CleanInterval = time.Hour
		r.start()
		time.Sleep(2 * time.Hour)
		if r.said.has("could not be cleaned") || !r.said.has(a) {
			t.Errorf("of a record that is damaged: %q", r.said.texts())
		}
		if _, err := r.mem.Load(t.Context(), lost); err == nil {
			t.Error("a challenge that is damaged is still there")
		}
	})
}

// TestResealThatIsCutShortIsGoneOnWith ends Reseal in the middle, at each record in
// turn: what was not reached counts as left, all can be read with both keys, and
// another call does the rest. (F40)
func TestResealThatIsCutShortIsGoneOnWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.CleanInterval, conf.Storage = -1, sealedWith(t, f, 1)
		m := start(t, conf)
		manage(t, m, "a.test", "b.test", "c.test")
		closeManager(t, m)
		all := len(keysOf(t, f))
		for n := range all {
			conf.Storage = sealedWith(t, f, byte(n+2), byte(n+1))
			m := start(t, conf)
			ctx, cancel := context.WithCancel(t.Context())
			f.set(func(c call) fault {
				if c.op == "store" && len(f.storesLocked()) == n {
					cancel()
				}
				return fault{}
			})
			if left, err := m.Reseal(ctx); left < all-n-1 || left == 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("ended at record %d of %d: %d left, %v", n, all, left, err)
			}
			f.set(nil)
			for _, key := range keysOf(t, f) {
				if _, err := conf.Storage.Load(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
			if left, err := m.Reseal(t.Context()); left != 0 || err != nil {
				t.Errorf("once more: %d left, %v", left, err)
			}
			closeManager(t, m)
		}
	})
}

// storesLocked returns the stores since set, but for the one that begins. It is for
// a hook.
func (f *faulty) storesLocked() (stores []call) {
	for _, c := range f.calls[:len(f.calls)-1] {
		if c.op == "store" {
			stores = append(stores, c)
		}
	}
	return stores
}

// explosive panics when one of its values is stored, or waits for as long as it may.
type explosive struct {
	*storage.Memory
	key   string
	waits bool
}

func (s explosive) Store(ctx context.Context, key string, value []byte) error {
	switch {
	case key == s.key && s.waits:
		<-ctx.Done()
		return ctx.Err()
	case key == s.key:
		panic("boom")
	}
	return s.Memory.Store(ctx, key, value)
}

// TestResealOfAStorageThatPanicsOrHangs has one value's store panic, or not return:
// it is counted, and the others are done. (F40)
func TestResealOfAStorageThatPanicsOrHangs(t *testing.T) {
	for _, waits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRecordRig(t)
			r.conf.Storage = sealedWith(t, r.mem, 1)
			a, b := r.fill(keyCerts)
			r.conf.Storage = sealedWith(t, explosive{r.mem, a, waits}, 2, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			left, err := r.start().Reseal(ctx)
			if left != 1 || err == nil || !strings.Contains(err.Error(), a) {
				t.Errorf("%d left, %v", left, err)
			}
			if _, err := sealedWith(t, r.mem, 2).Load(t.Context(), b); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a sealed storage there is nothing to be done.
func TestResealOfAPlainStorage(t *testing.T) {
	_, conf := newFake(t, fakeca.Options{})
	conf.Storage = storageAround{storage.NewMemory()}
	conf.Logger = slog.New(slog.DiscardHandler)
	if left, err := start(t, conf).Reseal(t.Context()); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
}
