package storage_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/storagetest"
)

func TestValidKey(t *testing.T) {
	tests := []struct {
		key  string
		want bool
	}{
		{"a", true},
		{"v1/certs/ca.example/*.example.com", true},
		{"...", true},
		{"a b/ü/字", true},
		{strings.Repeat("x", 255), true},
		{strings.Repeat("x/", 511) + "x", true},
		{"", false},
		{"/a", false},
		{"a/", false},
		{"a//b", false},
		{".", false},
		{"a/../b", false},
		{"a/.", false},
		{"a\x00b", false},
		{"a\u0085b", false},
		{"a\xffb", false},
		{strings.Repeat("x", 256), false},
		{strings.Repeat("x/", 512) + "x", false},
	}
	for _, tt := range tests {
		if got := storage.ValidKey(tt.key); got != tt.want {
			t.Errorf("ValidKey(%q) = %v, want %v", tt.key, got, tt.want)
		}
	}
}

func TestMemoryValues(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	if _, err := m.Load(ctx, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a missing key: %v", err)
	}
	for _, key := range []string{"b/c", "a", "b", "bc"} {
		if err := m.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.List(ctx, "b")
	if err != nil || len(got) != 1 || got[0] != "b/c" {
		t.Errorf("List(b) = %q, %v", got, err)
	}
	if err := m.Delete(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load(ctx, "b/c"); err != nil || string(v) != "b/c" {
		t.Errorf("Load(b/c) = %q, %v", v, err)
	}
	if err := m.Store(ctx, "a/", nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Store at a bad key: %v", err)
	}
}

func TestMemoryLockWaitsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storage.NewMemory()
		first, err := m.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range 3 {
			wg.Go(func() {
				l, err := m.Lock(t.Context(), "x")
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				time.Sleep(time.Second)
				if err := l.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		if err := first.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		for want := range 3 {
			if got := <-order; got != want {
				t.Errorf("turn %d went to waiter %d", want, got)
			}
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("three turns of a second took %v until the third", d)
		}
	})
}

func TestMemoryLockEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storage.NewMemory()
		held, err := m.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock of a held name: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := held.Unlock(ended); err != nil {
			t.Errorf("Unlock with an ended context: %v", err)
		}
		again, err := m.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Unlock(t.Context()); err != nil {
			t.Errorf("second Unlock: %v", err)
		}
		if again.Context().Err() != nil {
			t.Error("the second Unlock of one lease ended another")
		}
	})
}

// F44.
func TestMemoryRefusesUnderALostLease(t *testing.T) {
	m := storage.NewMemory()
	locks := &storagetest.LosableLocker{Locker: m}
	l, err := locks.Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := m.Lock(l.Context(), "y")
	if err != nil {
		t.Fatal(err)
	}
	if !locks.Lose("x") || locks.Lose("x") {
		t.Error("Lose reports wrongly")
	}
	if !errors.Is(context.Cause(l.Context()), storage.ErrLeaseLost) {
		t.Errorf("the context's cause is %v", context.Cause(l.Context()))
	}
	for name, ctx := range map[string]context.Context{
		"lost":            l.Context(),
		"lost, detached":  context.WithoutCancel(l.Context()),
		"inner":           inner.Context(),
		"inner, detached": context.WithoutCancel(inner.Context()),
	} {
		if err := m.Store(ctx, "k", nil); !errors.Is(err, storage.ErrLeaseLost) {
			t.Errorf("%s: Store under a lost lease: %v", name, err)
		}
		if err := m.Delete(ctx, "k"); !errors.Is(err, storage.ErrLeaseLost) {
			t.Errorf("%s: Delete under a lost lease: %v", name, err)
		}
	}
	next, err := m.Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(t.Context()); !errors.Is(err, storage.ErrLeaseLost) {
		t.Errorf("Unlock of a lost lease: %v", err)
	}
	if err := m.Store(next.Context(), "k", nil); err != nil {
		t.Errorf("Store under the next lease: %v", err)
	}
}
