package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/storage"
)

// Unlock returns in time although the backend hangs, and tells when it panics or
// finds the lock lost (F48).
func TestUnlockOfABackendInTrouble(t *testing.T) {
	tests := map[string]struct {
		release func(ctx context.Context) error
		after   time.Duration
		said    string
		lost    bool
	}{
		"hangs":        {func(context.Context) error { time.Sleep(time.Hour); return nil }, 10 * time.Second, "no answer", false},
		"honours ctx":  {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 10 * time.Second, "", false},
		"panics":       {func(context.Context) error { panic("broken") }, 0, "broken", false},
		"lost before":  {func(context.Context) error { return storage.ErrLeaseLost }, 0, "lease lost", true},
		"out of reach": {func(context.Context) error { return errors.New("connection refused") }, 0, "connection refused", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				l := storage.NewLease(ctx, "x", storage.LeaseOptions{Release: tt.release})
				cancel()
				begun := time.Now()
				err := l.Unlock(ctx)
				if took := time.Since(begun); took != tt.after {
					t.Errorf("Unlock took %v, want %v", took, tt.after)
				}
				if err == nil || !strings.Contains(err.Error(), tt.said) || !strings.Contains(err.Error(), `"x"`) {
					t.Errorf("Unlock = %v; want an error with %q", err, tt.said)
				}
				if l.Held() || errors.Is(l.Unlock(ctx), storage.ErrLeaseLost) != tt.lost {
					t.Errorf("held %v, the second Unlock says %v", l.Held(), l.Unlock(ctx))
				}
				time.Sleep(2 * time.Hour) // what hangs has to end within the bubble
			})
		})
	}
}

// What a context runs under is found in it, the innermost first, detached or not (F49).
func TestLeasesInAContext(t *testing.T) {
	gone := errors.New("gone")
	var verified error
	outer := storage.NewLease(t.Context(), "outer", storage.LeaseOptions{Token: 7, Verify: func() error { return verified }})
	plain := storage.NewLease(outer.Context(), "plain", storage.LeaseOptions{})
	inner := storage.NewLease(plain.Context(), "inner", storage.LeaseOptions{Token: "t"})
	ctx := context.WithoutCancel(inner.Context())
	tokens := storage.LeaseTokens(ctx)
	if len(tokens) != 2 || tokens[0] != (storage.LeaseToken{Name: "inner", Value: "t"}) || tokens[1] != (storage.LeaseToken{Name: "outer", Value: 7}) {
		t.Errorf("tokens %v", tokens)
	}
	if err := storage.LeaseErr(ctx); err != nil {
		t.Errorf("all are held: %v", err)
	}
	if verified = gone; !errors.Is(storage.LeaseErr(ctx), gone) {
		t.Errorf("what Verify says is lost: %v", storage.LeaseErr(ctx))
	}
	verified = nil
	if !plain.Lose() || plain.Lose() {
		t.Error("Lose reports wrongly")
	}
	if err := storage.LeaseErr(ctx); !errors.Is(err, storage.ErrLeaseLost) || !strings.Contains(err.Error(), `"plain"`) {
		t.Errorf("one is lost: %v", err)
	}
	if inner.Context().Err() == nil || !errors.Is(context.Cause(inner.Context()), storage.ErrLeaseLost) {
		t.Errorf("the context within a lost lease: %v", context.Cause(inner.Context()))
	}
	if storage.LeaseErr(t.Context()) != nil || storage.LeaseTokens(t.Context()) != nil {
		t.Error("a context under no lease has one")
	}
}
