package certwright

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// blocked returns a load that waits until open is closed, but for some names.
func blocked(free ...string) (load func(ctx context.Context, key string) error, open chan struct{}) {
	open = make(chan struct{})
	return func(ctx context.Context, key string) error {
		if !strings.HasPrefix(key, keyCerts) {
			return nil
		}
		for _, name := range free {
			if strings.HasSuffix(key, "/"+name) {
				return nil
			}
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, open
}

// TestStart_EveryHandshakeIsAnswered asks for stored names from the moment on in
// which ManageAsync returns.
func TestStart_EveryHandshakeIsAnswered(t *testing.T) {
	f := newFakeSigner(t)
	names := numbered(200, "example.com")
	mem := storedBy(t, f, names...)
	for round := range 20 {
		all := names
		if round%2 == 1 {
			all = append(numbered(atOnce, "many.example.org"), names...)
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

// TestStart_UnmanagedStaysUnmanaged has handshakes ask for a name while it is
// added and unmanaged.
func TestStart_UnmanagedStaysUnmanaged(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("not today")
	names := numbered(atOnce+1, "example.com")
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
		if m.entry(last) != nil {
			t.Fatal("a handshake brought back what was unmanaged")
		}
		closeManager(t, m)
	}
}

// TestStart_OtherWaysToAName asks for names that a start has not come to in all
// ways but by their own name.
func TestStart_OtherWaysToAName(t *testing.T) {
	f := newFakeSigner(t)
	mem := storedBy(t, f, "d.example.com", "192.0.2.1", "*.wild.example.com", "a.star.example.com", "x.example.com")
	names := append(numbered(100, "many.example.org"), "d.example.com", "192.0.2.1", "a.wild.example.com", "*.wild.example.com", "*.star.example.com", "a.star.example.com")
	for _, tt := range []struct {
		name, sni, addr, want string
	}{
		{"the default name", "", "", "d.example.com"},
		{"the fallback name", "unknown.example.net", "", "d.example.com"},
		{"an address", "", "192.0.2.1", ""},
		{"upper case", "D.Example.com", "", "d.example.com"},
		{"a wildcard beside a name of its own that has none", "a.wild.example.com", "", "*.wild.example.com"},
		{"a name beside a wildcard that has none", "a.star.example.com", "", "a.star.example.com"},
	} {
		for _, many := range []int{0, 2 * atOnce} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, many), func(t *testing.T) {
				load, open := blocked("d.example.com", "192.0.2.1", "a.wild.example.com", "*.wild.example.com", "*.star.example.com", "a.star.example.com")
				defer close(open)
				m := offline(t, f, over(mem, load), func(c *Config) { c.DefaultName, c.FallbackName = "d.example.com", "d.example.com" })
				if err := m.ManageAsync(append(numbered(many, "more.example.org"), names...)); err != nil {
					t.Fatal(err)
				}
				cert, err := m.GetCertificate(helloFor(tt.sni, tt.addr))
				if err != nil {
					t.Fatal(err)
				}
				if tt.want == "" {
					if len(cert.Leaf.IPAddresses) == 0 {
						t.Errorf("served is the certificate of %v", cert.Leaf.DNSNames)
					}
				} else if cert.Leaf.DNSNames[0] != tt.want {
					t.Errorf("served is the certificate of %v; want %s", cert.Leaf.DNSNames, tt.want)
				}
			})
		}
	}
}

// TestStart_WhatIsServedEarlyIsKnown has Status and Wait know of a certificate
// that a handshake had loaded.
func TestStart_WhatIsServedEarlyIsKnown(t *testing.T) {
	f := newFakeSigner(t)
	names := numbered(100, "example.com")
	last := names[len(names)-1]
	mem := storedBy(t, f, names...)
	load, open := blocked(last)
	m := offline(t, f, over(mem, load))
	defer close(open)
	if err := m.ManageAsync(names); err != nil {
		t.Fatal(err)
	}
	mustLeaf(t, m, last)
	if s := statusFor(t, m, last); s.State != StateValid || s.Serial == "" {
		t.Errorf("Status says %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Wait(ctx, last); err != nil {
		t.Error(err)
	}
}

// TestStart_EarlyIsOnceAndBounded has many handshakes at once ask for names that
// a slow storage has not given yet.
func TestStart_EarlyIsOnceAndBounded(t *testing.T) {
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
		for _, name := range names {
			if err := m.Wait(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if most > 6 { // of workers, and of handshakes
			t.Errorf("%d loads at once; want at most 6", most)
		}
		for key, n := range loads {
			if n > 2 {
				t.Errorf("%s was loaded %d times", key, n)
			}
		}
	})
}

// TestStart_PatienceOfAHandshake has storage never answer.
func TestStart_PatienceOfAHandshake(t *testing.T) {
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
		if took := time.Since(began); took != loadPatience {
			t.Errorf("the handshake waited %v", took)
		}
		close(open)
	})
}

// TestStart_EarlyLoadIsOvertaken has an early load end after the worker served a
// newer certificate, and after the name was unmanaged.
func TestStart_EarlyLoadIsOvertaken(t *testing.T) {
	for _, unmanage := range []bool{false, true} {
		t.Run(fmt.Sprintf("unmanage=%v", unmanage), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				mem := storedBy(t, f, "a.example.com")
				key := storageKey(keyCerts, f.ID(), "a.example.com")
				old, err := mem.Load(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				f.set(func() { f.err = nil })
				m := offline(t, f, func(c *Config) { c.Storage = mem })
				manage(t, m, "a.example.com")
				if err := m.Renew(t.Context(), "a.example.com"); err != nil {
					t.Fatal(err)
				}
				newest := mustLeaf(t, m, "a.example.com")
				c := m.entry("a.example.com")
				if unmanage {
					if err := m.Unmanage("a.example.com"); err != nil {
						t.Fatal(err)
					}
				}
				if err := mem.Store(t.Context(), key, old); err != nil {
					t.Fatal(err)
				}
				m.readEarly(c) // as one that began before
				leaf := leafOf(m, "a.example.com")
				if unmanage && leaf != nil {
					t.Error("what was unmanaged is served")
				}
				if !unmanage && (leaf == nil || !leaf.Equal(newest)) {
					t.Error("an older certificate is served after a newer one")
				}
			})
		})
	}
}

// TestManageAsync_GivenOnceMore has lists that grow by one name hold no memory
// but for that one.
func TestManageAsync_GivenOnceMore(t *testing.T) {
	const n, rounds = 2000, 50
	f := newFakeSigner(t)
	f.hook = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	m := offline(t, f, func(c *Config) { c.Workers = 1 })
	list := func(extra int) (names []string) {
		for i := range n + extra {
			names = append(names, fmt.Sprintf("customer-%06d.shops.example.com", i))
		}
		return names
	}
	give := func(extra int) {
		if err := m.ManageAsync(list(extra)); err != nil {
			t.Fatal(err)
		}
		if err := m.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	give(0)
	before := heapInUse()
	for k := range rounds {
		give(k + 1)
	}
	if each := (heapInUse() - before) / rounds; each > 4<<10 {
		t.Errorf("%d bytes for each new name", each)
	}
	runtime.KeepAlive(m)
}

// TestManageAsync_CallsDoNotWaitForIt has calls with a context return when that
// ends although many names are being added, and Health at once.
func TestManageAsync_CallsDoNotWaitForIt(t *testing.T) {
	m := offline(t, newFakeSigner(t))
	l := &later{done: make(chan struct{})}
	m.later.Store(l)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"ManageSync": func() error { return m.ManageSync(ctx, []string{"a.example.com"}) },
		"Renew":      func() error { return m.Renew(ctx, "a.example.com") },
		"Wait":       func() error { return m.Wait(ctx, "a.example.com") },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if h := m.Health(); h.Managed != 0 {
		t.Errorf("Health has %d names", h.Managed)
	}
	m.later.Store(nil)
	close(l.done)
}

// TestWaiters_AlwaysTold is about waiters whose run ends in an odd way.
func TestWaiters_AlwaysTold(t *testing.T) {
	t.Run("unmanaged before they are put back", func(t *testing.T) {
		m := offline(t, newFakeSigner(t))
		manage(t, m, "a.example.com")
		c := m.entry("a.example.com")
		w := newWait(1)
		if err := m.Unmanage("a.example.com"); err != nil {
			t.Fatal(err)
		}
		c.putBack([]waiter{{call: w}})
		if err := w.await(t.Context(), "waiting"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("told %v", err)
		}
	})
	t.Run("the issuer ends its goroutine", func(t *testing.T) {
		f := newFakeSigner(t)
		f.hook = func(context.Context) error { runtime.Goexit(); return nil }
		m := offline(t, f)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := m.ManageSync(ctx, []string{"a.example.com"}); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("told %v", err)
		}
	})
}
