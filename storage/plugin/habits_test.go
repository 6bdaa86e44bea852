package plugin

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/storage"
)

// A value that is missing costs one call: on an object store a list goes through
// the bucket (F43).
func TestMissingIsBelieved(t *testing.T) {
	p := newFakePlugin()
	s := CertMagic(p)
	if _, err := s.Load(t.Context(), "v1/certs/a"); err == nil {
		t.Error("a missing value is loaded")
	}
	if p.lists != 0 {
		t.Errorf("a missing value cost %d lists", p.lists)
	}
}

// A plugin that lists no folders still lists what is in one (F43).
func TestListOfOneFlatFolder(t *testing.T) {
	for _, relative := range []bool{false, true} {
		p := newFakePlugin()
		p.onlyValues, p.noRecursion, p.relative = true, true, relative
		s := CertMagic(p)
		keys := []string{"v1/certs/*.a.test+p256.pem", "v1/certs/a.test+p256.pem"}
		for _, key := range keys {
			if err := s.Store(t.Context(), key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.List(t.Context(), "v1/certs"); err != nil || !slices.Equal(got, keys) {
			t.Errorf("List = %q, %v; want %q", got, err, keys)
		}
	}
}

// strangeList lists names of its own, which lead nowhere.
type strangeList struct{ *fakePlugin }

func (p strangeList) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	if prefix != "certwright/v1/certs" {
		return nil, nil
	}
	return []string{"0a1b2c", "d3e4f5"}, nil
}

// F43.
func TestListThatIsNotUnderstoodIsAnError(t *testing.T) {
	s := CertMagic(strangeList{newFakePlugin()})
	if err := s.Store(t.Context(), "v1/certs/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.List(t.Context(), "v1/certs"); err == nil || !strings.Contains(err.Error(), "0a1b2c") {
		t.Errorf("List = %q, %v; want an error that names what was listed", keys, err)
	}
}

// A lock that fails at once when it is held is waited for, with no renewal (F43).
func TestLockThatFailsWhenHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePlugin()
		p.failsHeld = true
		s, other := CertMagic(p), CertMagic(p)
		held, err := other.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock is held") {
			t.Errorf("Lock of a held lock: %v; want the context's end and what the plugin said", err)
		}
		time.AfterFunc(time.Minute, func() {
			if err := held.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		})
		begun := time.Now()
		l, err := s.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < time.Minute || took > time.Minute+again.Max {
			t.Errorf("the lock was had after %v, and free after a minute", took)
		}
		time.Sleep(24 * time.Hour)
		if err := errors.Join(storage.LeaseErr(l.Context()), l.Unlock(t.Context()), s.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// F44.
func TestDeleteIsFenced(t *testing.T) {
	s := CertMagic(newFakePlugin())
	if err := s.Store(t.Context(), "v1/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(context.WithoutCancel(l.Context()), "v1/a"); !errors.Is(err, storage.ErrLeaseLost) {
		t.Errorf("Delete under a lease that has ended: %v", err)
	}
	if _, err := s.Load(t.Context(), "v1/a"); err != nil {
		t.Error(err)
	}
}

// A component that goes on in a folder is not below one that begins alike.
func TestListOfLongComponents(t *testing.T) {
	s := CertMagic(newFakePlugin())
	short := "v1/" + strings.Repeat("x", 200)
	for _, key := range []string{short + "/a", short + "y/b"} {
		if err := s.Store(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{short: short + "/a", short + "y": short + "y/b"} {
		if got, err := s.List(t.Context(), prefix); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("List(%q) = %q, %v; want %q", prefix, got, err, want)
		}
	}
}

// wildPlugin panics in some of its calls, ends their goroutines in others, or does
// not return.
type wildPlugin struct {
	*fakePlugin
	wild func(call string)
}

func (p wildPlugin) Lock(ctx context.Context, name string) error {
	p.wild("Lock")
	return p.fakePlugin.Lock(ctx, name)
}

func (p wildPlugin) Unlock(ctx context.Context, name string) error {
	err := p.fakePlugin.Unlock(ctx, name)
	p.wild("Unlock")
	return err
}

func (p wildPlugin) RenewLockLease(context.Context, string, time.Duration) error {
	p.wild("RenewLockLease")
	return nil
}

// What a plugin does on goroutines of this package ends neither the process nor the
// use of the lock (F43).
func TestLockOfAWildPlugin(t *testing.T) {
	for _, call := range []string{"Lock", "Unlock", "RenewLockLease"} {
		for _, how := range []string{"panics", "ends its goroutine", "hangs"} {
			t.Run(call+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					hang := make(chan struct{})
					act := map[string]func(){"panics": func() { panic("wild") }, "ends its goroutine": runtime.Goexit, "hangs": func() { <-hang }}[how]
					var done atomic.Bool
					s := CertMagic(wildPlugin{newFakePlugin(), func(c string) {
						if c == call && done.CompareAndSwap(false, true) {
							act()
						}
					}})
					soon, end := context.WithTimeout(t.Context(), time.Hour)
					defer end()
					if l, err := s.Lock(soon, "y"); err == nil {
						time.Sleep(2 * leaseLife)
						if lost := errors.Is(storage.LeaseErr(l.Context()), storage.ErrLeaseLost); lost != (call == "RenewLockLease") {
							t.Errorf("the lease is lost: %v", lost)
						}
						began := time.Now()
						_ = l.Unlock(t.Context())
						if took := time.Since(began); took > unlockPatience {
							t.Errorf("Unlock took %v", took)
						}
					}
					for _, name := range []string{"x", "y"} { // what a call hangs at can be had too
						ctx, cancel := context.WithTimeout(t.Context(), 2*leaseLife)
						defer cancel()
						l, err := s.Lock(ctx, name)
						if err != nil {
							t.Fatal(err)
						}
						if err := l.Unlock(t.Context()); err != nil {
							t.Error(err)
						}
					}
					close(hang)
					if err := s.Close(t.Context()); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}
