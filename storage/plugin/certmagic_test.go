package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/storage"
)

// habits are plugins that differ in what plugins may differ in.
func habits() map[string]*fakePlugin {
	out := map[string]*fakePlugin{}
	for name, set := range map[string]func(*fakePlugin){
		"plain":                func(*fakePlugin) {},
		"own error if missing": func(p *fakePlugin) { p.rawMissing = true },
		"list says not found":  func(p *fakePlugin) { p.listsMissing = true },
		"lists all values":     func(p *fakePlugin) { p.listsAll = true },
		"lists all there is":   func(p *fakePlugin) { p.listsAll, p.listsDirs = true, true },
		"refuses recursion":    func(p *fakePlugin) { p.noRecursion = true },
		"prefix by string":     func(p *fakePlugin) { p.byString = true },
		"relative keys":        func(p *fakePlugin) { p.relative = true },
		"all, relative":        func(p *fakePlugin) { p.relative, p.listsAll = true, true },
		"base names":           func(p *fakePlugin) { p.baseNames = true },
		"prefix of its own":    func(p *fakePlugin) { p.ownPrefix = "/caddy/" },
		"all, with a prefix":   func(p *fakePlugin) { p.ownPrefix, p.listsAll, p.byString = "bucket/", true, true },
		"refuses empty values": func(p *fakePlugin) { p.refusesEmpty = true },
		"delete fails":         func(p *fakePlugin) { p.deleteFails = true },
		"object store": func(p *fakePlugin) {
			p.rawMissing, p.byString, p.refusesEmpty, p.deleteFails, p.listsAll = true, true, true, true, true
		},
	} {
		p := newFakePlugin()
		set(p)
		p.values["certificates/other/key"] = []byte("of CertMagic")
		out[name] = p
	}
	return out
}

// F43.
func TestKeepsTheContract(t *testing.T) {
	for name, p := range habits() {
		t.Run(name, func(t *testing.T) {
			ctx, a := t.Context(), CertMagic(p)
			keys := []string{"v1/a", "v1/a/b", "v1/ab", "v1/A", "v1/*.example.com/x+rsa", "v1/2001:db8::1", "v1/" + strings.Repeat("Ä", 120) + "/z", "con/..x/y."}
			for _, key := range keys {
				if _, err := a.Load(ctx, key); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Load(%q) before = %v; want not found", key, err)
				}
				for _, value := range []string{"", "\x00", "\x00\x00x", "text of " + key} {
					if err := a.Store(ctx, key, []byte(value)); err != nil {
						t.Fatal(err)
					}
					if got, err := a.Load(ctx, key); err != nil || string(got) != value {
						t.Errorf("Load(%q) = %q, %v; want %q", key, got, err, value)
					}
				}
			}
			for prefix, want := range map[string][]string{
				"v1":       keys[:7],
				"v1/a":     {"v1/a/b"},
				"":         keys,
				"v1/none":  nil,
				"v1/ab":    nil,
				"con/..x":  {"con/..x/y."},
				"con":      {"con/..x/y."},
				"v1/a/b/c": nil,
			} {
				want = slices.Sorted(slices.Values(want))
				if got, err := a.List(ctx, prefix); err != nil || !slices.Equal(got, want) {
					t.Errorf("List(%q) = %q, %v; want %q", prefix, got, err, want)
				}
			}
			for range 2 {
				if err := a.Delete(ctx, "v1/a"); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
			if got, err := a.Load(ctx, "v1/a/b"); err != nil {
				t.Errorf("below what was deleted: %q, %v", got, err)
			}
		})
	}
}

// TestFailureIsNotMissing takes the backend away.
func TestFailureIsNotMissing(t *testing.T) {
	for name, p := range habits() {
		t.Run(name, func(t *testing.T) {
			ctx, a := t.Context(), CertMagic(p)
			if err := a.Store(ctx, "v1/a", []byte("x")); err != nil {
				t.Fatal(err)
			}
			p.setDown(true)
			for key, load := range map[string]func() error{
				"Load there":   func() error { _, err := a.Load(ctx, "v1/a"); return err },
				"Load missing": func() error { _, err := a.Load(ctx, "v1/b"); return err },
				"List":         func() error { _, err := a.List(ctx, "v1"); return err },
				"Store":        func() error { return a.Store(ctx, "v1/a", []byte("y")) },
				"Delete":       func() error { return a.Delete(ctx, "v1/a") },
			} {
				if err := load(); !errors.Is(err, errBackend) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v; want the backend's error", key, err)
				}
			}
			p.setDown(false)
			if got, err := a.Load(ctx, "v1/a"); err != nil || string(got) != "x" {
				t.Errorf("Load after = %q, %v", got, err)
			}
		})
	}
}

func TestEmptyRead(t *testing.T) {
	p := newFakePlugin()
	a := CertMagic(p)
	if err := a.Store(t.Context(), "v1/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	p.torn = 1
	if got, err := a.Load(t.Context(), "v1/a"); err != nil || string(got) != "x" {
		t.Errorf("Load beside a writer = %q, %v; want the value", got, err)
	}
	p.torn = 100
	if got, err := a.Load(t.Context(), "v1/a"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a value that stays empty = %q, %v; want an error", got, err)
	}
}

// flakyList loses entries while it walks, as a walk over files does.
type flakyList struct {
	*fakePlugin
	left atomic.Int32
}

func (p *flakyList) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	keys, err := p.fakePlugin.List(ctx, prefix, recursive)
	if p.left.Add(-1) >= 0 && len(keys) > 0 {
		return keys[:1], fs.ErrNotExist
	}
	return keys, err
}

func TestListIsWhole(t *testing.T) {
	p := &flakyList{fakePlugin: newFakePlugin()}
	a := CertMagic(p)
	for i := range 5 {
		if err := a.Store(t.Context(), fmt.Sprintf("v1/%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	p.left.Store(3)
	if got, err := a.List(t.Context(), "v1"); err != nil || len(got) != 5 {
		t.Errorf("List beside a deletion = %q, %v; want five", got, err)
	}
	p.left.Store(1 << 20)
	if got, err := a.List(t.Context(), "v1"); err == nil || errors.Is(err, fs.ErrNotExist) && len(got) > 0 {
		t.Errorf("List without end = %q, %v; want an error", got, err)
	}
}

// TestLockIsBounded waits for a lock of a plugin that does not
// look at the context, and gets it too late.
func TestLockIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePlugin()
		p.ignoresCtx = true
		a, other := CertMagic(p), CertMagic(p)
		lease, err := other.Lock(t.Context(), "x") // another process
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := a.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("Lock = %v after %v; want it to end with its context", err, time.Since(began))
		}
		closing, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Close(closing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close while the plugin waits = %v", err)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if p.held("x") {
			t.Error("a lock that came too late was kept")
		}
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		again, err := a.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestUnlockWithEndedContext(t *testing.T) {
	p := newFakePlugin()
	a := CertMagic(p)
	ctx, cancel := context.WithCancel(t.Context())
	lease, err := a.Lock(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := lease.Unlock(ctx); err != nil || p.held("x") {
		t.Errorf("Unlock = %v, held %v", err, p.held("x"))
	}
}

// renewingPlugin has leases that must be renewed.
type renewingPlugin struct {
	*fakePlugin
	calls atomic.Int32
	fails atomic.Bool
}

func (p *renewingPlugin) RenewLockLease(_ context.Context, _ string, lease time.Duration) error {
	p.calls.Add(1)
	if p.fails.Load() || lease < time.Second {
		return errBackend
	}
	return nil
}

func TestRenewsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &renewingPlugin{fakePlugin: newFakePlugin()}
		a := CertMagic(p)
		lease, err := a.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := p.calls.Load(); n < 20 || lease.Context().Err() != nil {
			t.Errorf("%d renewals in ten minutes, context %v", n, lease.Context().Err())
		}
		p.fails.Store(true)
		time.Sleep(leaseLife)
		if !errors.Is(context.Cause(lease.Context()), storage.ErrLeaseLost) {
			t.Errorf("context of a lease that could not be renewed: %v", context.Cause(lease.Context()))
		}
		late := context.WithoutCancel(lease.Context())
		if err := a.Store(late, "v1/a", []byte("late")); !errors.Is(err, storage.ErrLeaseLost) {
			t.Errorf("a store on a lost lease: %v", err)
		}
		if p.held("x") {
			t.Error("a lock whose lease was given up stays behind")
		}
		next, err := a.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Unlock(t.Context()); !errors.Is(err, storage.ErrLeaseLost) || !p.held("x") {
			t.Errorf("Unlock of a lost lease = %v; the next holder's lock is held: %v", err, p.held("x"))
		}
		p.fails.Store(false)
		if err := next.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
		n := p.calls.Load()
		time.Sleep(10 * time.Minute)
		if p.calls.Load() != n {
			t.Error("a lease is renewed after its Unlock")
		}
	})
}

func TestLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := &renewingPlugin{fakePlugin: newFakePlugin()}
	a := CertMagic(p)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			lease, err := a.Lock(t.Context(), "x")
			if err != nil {
				t.Error(err)
				return
			}
			if err := lease.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzPluginKey(f *testing.F) {
	for _, s := range []string{"a", "v1/certs/x/*.example.com", "a.b/c..d/.e", "Ä/_/con/lpt1.txt", strings.Repeat("/x", 9)[1:], strings.Repeat("_", 255)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if got, ok := fromPluginKey(key); ok && pluginKey(got) != strings.Trim(key, "/") {
			t.Errorf("%q stands for %q, whose key is %q", key, got, pluginKey(got))
		}
		if !storage.ValidKey(key) {
			return
		}
		text := pluginKey(key)
		for component := range strings.SplitSeq(text, "/") {
			if component == "" || component[0] == '.' && component[1:2] == "." || len(component) > 210 || strings.ToLower(component) != component {
				t.Errorf("component %q of the key for %q", component, key)
			}
		}
		if got, ok := fromPluginKey(text); !ok || got != key {
			t.Errorf("%q came back as %q, %v", key, got, ok)
		}
		if dir := parentOf(key); dir != "" && !strings.HasPrefix(text, pluginDir(dir)+"/") {
			t.Errorf("%q is not below %q", text, pluginDir(dir))
		}
	})
}
