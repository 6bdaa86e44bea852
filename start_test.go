package certwright_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// hooked is a storage whose loads are told of first.
type hooked struct {
	*storage.Memory
	load func(ctx context.Context, key string) error
}

func (h *hooked) Load(ctx context.Context, key string) ([]byte, error) {
	if err := h.load(ctx, key); err != nil {
		return nil, err
	}
	return h.Memory.Load(ctx, key)
}

// storedBy returns a storage with certificates for names, of which each has its
// own. The signer signs nothing from then on.
func storedBy(t testing.TB, f *fakeSigner, names ...string) *storage.Memory {
	t.Helper()
	mem := storage.NewMemory()
	first := offline(t, f, func(c *Config) { c.Storage = mem })
	manage(t, first, names...)
	closeManager(t, first)
	f.set(func() { f.err = errors.New("not today") })
	return mem
}

// over has a Manager use a storage whose loads are told of.
func over(mem *storage.Memory, load func(ctx context.Context, key string) error) func(*Config) {
	return func(c *Config) { c.Storage, c.Locker = &hooked{mem, load}, mem }
}

// blocked returns a load of certificates that waits until open is closed, but for
// those of some names.
func blocked(free ...string) (load func(ctx context.Context, key string) error, open chan struct{}) {
	open = make(chan struct{})
	var begins []string
	for _, name := range free {
		begins = append(begins, strings.TrimSuffix(certKey(name), ".pem"))
	}
	return func(ctx context.Context, key string) error {
		isFree := slices.ContainsFunc(begins, func(begin string) bool { return strings.HasPrefix(key, begin) })
		if isFree || !strings.HasPrefix(key, keyCerts) {
			return nil
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, open
}

// Stored names are asked for from the moment on in which ManageAsync returns.
func TestStoredNamesAreServedAtOnce(t *testing.T) {
	f := newFakeSigner(t)
	names := numbered(200, "example.com")
	mem := storedBy(t, f, names...)
	for round := range 10 {
		all := names
		if round%2 == 1 {
			all = append(numbered(500, "many.example.org"), names...)
		}
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		if err := m.ManageAsync(all); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range names {
					name := names[(i*7+w*50)%len(names)]
					if cert, err := m.GetCertificate(helloFor(name, "")); cert == nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		closeManager(t, m)
	}
}

// Handshakes ask for a name while it is added and unmanaged.
func TestUnmanagedStaysUnmanaged(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("not today")
	names := numbered(100, "example.com")
	last := names[len(names)-1]
	for range 20 {
		m := offline(t, f)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for !stop.Load() {
					_ = leafOf(m, last)
				}
			})
		}
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		if err := m.Unmanage(last); err != nil {
			t.Error(err)
		}
		stop.Store(true)
		wg.Wait()
		if err := m.Wait(t.Context(), last); !errors.Is(err, ErrNotManaged) {
			t.Fatalf("Wait for what was unmanaged = %v", err)
		}
		closeManager(t, m)
	}
}

// Names that a start has not come to are asked for in all ways. The loads of all
// other names hang.
func TestHandshakesGoBeforeTheStart(t *testing.T) {
	names := append(numbered(100, "many.example.org"), "d.example.com", "192.0.2.1", "a.wild.example.com", "*.wild.example.com",
		"*.star.example.com", "a.star.example.com", "x.example.com")
	for _, tt := range []struct {
		name, sni, addr, want string
	}{
		{"its own name", "x.example.com", "", "x.example.com"},
		{"the default name", "", "", "d.example.com"},
		{"the fallback name", "unknown.example.net", "", "d.example.com"},
		{"an address", "", "192.0.2.1", ""},
		{"upper case", "D.Example.com", "", "d.example.com"},
		{"a wildcard beside a name of its own that has none", "a.wild.example.com", "", "*.wild.example.com"},
		{"a name beside a wildcard that has none", "a.star.example.com", "", "a.star.example.com"},
	} {
		for _, many := range []int{0, 1000} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, many), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFakeSigner(t)
					mem := storedBy(t, f, "d.example.com", "192.0.2.1", "*.wild.example.com", "a.star.example.com", "x.example.com")
					load, open := blocked("d.example.com", "192.0.2.1", "a.wild.example.com", "*.wild.example.com", "*.star.example.com",
						"a.star.example.com", "x.example.com")
					m := offline(t, f, over(mem, load), func(c *Config) { c.DefaultName, c.FallbackName = "d.example.com", "d.example.com" })
					defer close(open)
					if err := m.ManageAsync(append(numbered(many, "more.example.org"), names...)); err != nil {
						t.Fatal(err)
					}
					began := time.Now()
					cert, err := m.GetCertificate(helloFor(tt.sni, tt.addr))
					if err != nil {
						t.Fatal(err)
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("it took %v", took)
					}
					if got := append(cert.Leaf.DNSNames, ""); got[0] != tt.want {
						t.Errorf("served is the certificate of %v; want %s", got, tt.want)
					}
				})
			})
		}
	}
}

// Status and Wait know of a certificate that a handshake had loaded.
func TestWhatAHandshakeHadLoadedIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		names := numbered(100, "example.com")
		last := names[len(names)-1]
		mem := storedBy(t, f, names...)
		load, open := blocked(last)
		m := offline(t, f, over(mem, load))
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		mustLeaf(t, m, last)
		synctest.Wait()
		if s := statusFor(t, m, last); s.State != StateValid || s.Serial == "" {
			t.Errorf("Status says %+v", s)
		}
		if s := statusFor(t, m, names[0]); s.State != StatePending || !strings.HasPrefix(s.Doing, "load") {
			t.Errorf("Status says %+v of one whose load hangs", s)
		}
		if err := m.Wait(t.Context(), last); err != nil {
			t.Error(err)
		}
		close(open)
		for _, name := range names {
			if err := m.Wait(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			mustLeaf(t, m, name)
		}
		if n := f.count(); n != len(names) {
			t.Errorf("%d certificates were issued; want %d", n, len(names))
		}
	})
}

// Many handshakes at once ask for names that a slow storage has not given yet.
func TestHandshakesShareBoundedLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		names := numbered(100, "example.com")
		mem := storedBy(t, f, names...)
		var mu sync.Mutex
		now, most, loads := 0, 0, map[string]int{}
		m := offline(t, f, over(mem, func(_ context.Context, key string) error {
			if !strings.HasPrefix(key, keyCerts) {
				return nil
			}
			mu.Lock()
			now, loads[key] = now+1, loads[key]+1
			most = max(most, now)
			mu.Unlock()
			time.Sleep(50 * time.Millisecond)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		}), func(c *Config) { c.Workers = 3 })
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, name := range names {
			for range 3 {
				wg.Go(func() {
					if leafOf(m, name) == nil {
						t.Errorf("%s is not served", name)
					}
				})
			}
		}
		wg.Wait()
		if most != 3 {
			t.Errorf("%d loads at once; want as many as there are workers, 3", most)
		}
		for _, name := range names {
			if n := loads[certKey(name)]; n != 1 {
				t.Errorf("%s was loaded %d times", name, n)
			}
		}
	})
}

// Storage never answers.
func TestPatienceOfAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storedBy(t, f, "a.example.com")
		load, open := blocked()
		m := offline(t, f, over(mem, load))
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if leafOf(m, "a.example.com") != nil {
			t.Error("it is served")
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the handshake waited %v", took)
		}
		close(open)
	})
}

// A load ends after its name was unmanaged.
func TestLoadThatEndsAfterUnmanage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storedBy(t, f, "a.example.com")
		load, open := blocked()
		m := offline(t, f, over(mem, load))
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := m.Unmanage("a.example.com"); err != nil {
			t.Fatal(err)
		}
		close(open)
		synctest.Wait()
		if leafOf(m, "a.example.com") != nil || len(m.Status()) != 0 {
			t.Error("what was unmanaged is served")
		}
	})
}

// An older record comes back in storage, and another instance tells of it.
func TestOlderRecordDoesNotReplaceANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example.com"
		f := newFakeSigner(t)
		mem := storage.NewMemory()
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		manage(t, m, name)
		old, err := mem.Load(t.Context(), certKey(name))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := m.Renew(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		newest := mustLeaf(t, m, name)
		if err := mem.Store(t.Context(), certKey(name), old); err != nil {
			t.Fatal(err)
		}
		other := recordsOn(mem).NewChanges("other")
		other.Note(records.ID([]string{name}, P256))
		if err := other.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !mustLeaf(t, m, name).Equal(newest) {
			t.Error("an older certificate is served after a newer one")
		}
		if leaf, err := storedFor(t, mem, name).Leaf(); err != nil || !leaf.Equal(newest) {
			t.Errorf("stored is another certificate than the newest: %v", err)
		}
	})
}

// The names of one call are answered and managed when it returns.
func TestManageAsyncOfMany(t *testing.T) {
	f := newFakeSigner(t)
	names := append(numbered(2000, "example.com"), "*.wild.example.com", "last.example.com")
	mem := storedBy(t, f, names[len(names)-2:]...)
	m := offline(t, f, func(c *Config) { c.Storage = mem })
	if err := m.ManageAsync(names); err != nil {
		t.Fatal(err)
	}
	mustLeaf(t, m, "last.example.com")
	mustLeaf(t, m, "a.wild.example.com")
	if leafOf(m, "unknown.example.org") != nil {
		t.Error("an unknown name is served")
	}
	if n := len(m.Status()); n != len(names) {
		t.Errorf("Status has %d names; want %d", n, len(names))
	}
	if err := m.Unmanage(names...); err != nil {
		t.Error(err)
	}
	if n := len(m.Status()); n != 0 {
		t.Errorf("Status has %d names after Unmanage", n)
	}
	closeManager(t, m)
	if err := m.ManageAsync(names); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestWhoWaitsIsToldThatTheIssuerEndedItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.hook = func(context.Context) error { runtime.Goexit(); return nil }
		m := offline(t, f)
		began := time.Now()
		err := m.ManageSync(t.Context(), []string{"a.example.com"})
		var failure *IssueError
		if !errors.As(err, &failure) || time.Since(began) > time.Second {
			t.Errorf("told %v after %v", err, time.Since(began))
		}
	})
}
