package certwright_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// TestInstancesServeWhatTheOthersStored renews on one of two instances, as is done
// when a key is known to others: just after the start of the other one, and later
// (F52).
func TestInstancesServeWhatTheOthersStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		a, b := start(t, conf), start(t, conf)
		manage(t, a, "a.example.com")
		manage(t, b, "a.example.com")
		for range 2 {
			if err := a.Renew(t.Context(), "a.example.com"); err != nil {
				t.Fatal(err)
			}
			want := mustLeaf(t, a, "a.example.com")
			if mustLeaf(t, b, "a.example.com").Equal(want) {
				t.Fatal("the other instance serves the new certificate before it can have looked")
			}
			time.Sleep(33 * time.Second) // 2 until it is told of, 30 until the next look
			if !mustLeaf(t, b, "a.example.com").Equal(want) {
				t.Error("half a minute later the other instance serves the certificate that was replaced")
			}
		}
		if n := ca.Count("newOrder"); n != 3 {
			t.Errorf("%d orders for a certificate and two renewals", n)
		}
	})
}

// TestFirstLookThatFailsOrIsSlow has an instance's first look at what others changed
// fail, or take long, while another one renews: it serves the new certificate
// within a minute all the same (F52).
func TestFirstLookThatFailsOrIsSlow(t *testing.T) {
	for how, first := range map[string]fault{"fails": {err: syscall.EIO}, "is slow": {delay: 20 * time.Second}, "takes a second": {delay: time.Second}} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conf := newFake(t, fakeca.Options{})
				mem := storage.NewMemory()
				conf.Storage = mem
				a := start(t, conf)
				manage(t, a, "a.example.com")
				f := newFaulty(mem)
				looks := 0
				f.set(func(c call) fault {
					if c.op == "list" && c.key == keyChanges {
						if looks++; looks == 1 {
							return first
						}
					}
					return fault{}
				})
				conf.Storage = f
				b := start(t, conf)
				manage(t, b, "a.example.com")
				if err := a.Renew(t.Context(), "a.example.com"); err != nil {
					t.Fatal(err)
				}
				want := mustLeaf(t, a, "a.example.com")
				if how == "takes a second" { // and the other one ends within it
					closeManager(t, a)
				}
				time.Sleep(time.Minute)
				if !mustLeaf(t, b, "a.example.com").Equal(want) {
					t.Error("the certificate that was replaced is served still")
				}
			})
		})
	}
}

// badChanges is a storage that never returns when it lists changes.
type badChanges struct {
	*storage.Memory
	calls atomic.Int32
}

func (s *badChanges) List(ctx context.Context, prefix string) ([]string, error) {
	if strings.HasPrefix(prefix, keyChanges) {
		if s.calls.Add(1)%2 == 0 {
			runtime.Goexit()
		}
		panic("list")
	}
	return s.Memory.List(ctx, prefix)
}

func TestStorageThatPanicsWhenChangesAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		bad := &badChanges{Memory: storage.NewMemory()}
		conf.Storage = bad
		m := start(t, conf)
		time.Sleep(5 * time.Minute)
		manage(t, m, "a.example.com")
		if n := bad.calls.Load(); n < 5 || n > 15 {
			t.Errorf("changes were looked at %d times in five minutes", n)
		}
	})
}

// leavingStorage ends the goroutine that lists holds for the first time, as
// testing.T's FailNow does.
type leavingStorage struct {
	*storage.Memory
	once sync.Once
}

func (s *leavingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if prefix == keyHolds {
		s.once.Do(runtime.Goexit)
	}
	return s.Memory.List(ctx, prefix)
}

func TestStorageThatEndsTheCleaning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		conf.Storage = &leavingStorage{Memory: storage.NewMemory()}
		start(t, conf)
		time.Sleep(2 * time.Hour)
		if _, err := conf.Storage.Load(t.Context(), keyCleaned); err != nil {
			t.Error(err)
		}
	})
}
