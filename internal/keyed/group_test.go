package keyed

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
)

func TestH13_WaitersShareTheLeadersResult(t *testing.T) {
	for _, fail := range []error{nil, errors.New("no luck")} {
		synctest.Test(t, func(t *testing.T) {
			g := NewGroup[int](t.Context())
			var runs, shared atomic.Int32
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					v, err, s := g.Do(t.Context(), "a", func(context.Context) (int, error) {
						time.Sleep(50 * time.Millisecond)
						return int(runs.Add(1)), fail
					})
					if v != 1 || !errors.Is(err, fail) {
						t.Errorf("Do = %d, %v", v, err)
					}
					if s {
						shared.Add(1)
					}
				})
			}
			wg.Wait()
			if runs.Load() != 1 || shared.Load() != 199 {
				t.Errorf("%d runs, %d shared; want 1 and 199", runs.Load(), shared.Load())
			}
			if g.Len() != 0 {
				t.Errorf("%d calls are left", g.Len())
			}
		})
	}
}

func TestGroupRunsAnewAndByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup[string](t.Context())
		var runs atomic.Int32
		do := func(key string) string {
			v, err, _ := g.Do(t.Context(), key, func(context.Context) (string, error) {
				time.Sleep(time.Second)
				return fmt.Sprint(key, runs.Add(1)), nil
			})
			if err != nil {
				t.Error(err)
			}
			return v
		}
		if a, b := do("a"), do("a"); a != "a1" || b != "a2" {
			t.Errorf("one after the other: %q and %q", a, b)
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { do(fmt.Sprint(i)) })
		}
		wg.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("ten keys took %v", took)
		}
	})
}

func TestM5_LeavingDoesNotEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, end := context.WithCancel(t.Context())
		g := NewGroup[int](base)
		var runs atomic.Int32
		fn := func(ctx context.Context) (int, error) {
			runs.Add(1)
			select {
			case <-time.After(time.Minute):
				return 7, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err, _ := g.Do(ctx, "a", fn); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Do = %v", err)
				}
			})
		}
		wg.Wait()
		if v, err, shared := g.Do(t.Context(), "a", fn); v != 7 || err != nil || !shared {
			t.Errorf("the one who stays gets %d, %v, %v", v, err, shared)
		}
		if runs.Load() != 1 {
			t.Errorf("%d runs; want 1", runs.Load())
		}

		// The end of the group's context ends the run, and Wait sees it end.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err, _ := g.Do(ctx, "b", fn); !errors.Is(err, context.Canceled) || runs.Load() != 1 {
			t.Errorf("Do with an ended context = %v, %d runs", err, runs.Load())
		}
		wg.Go(func() {
			if _, err, _ := g.Do(t.Context(), "c", fn); !errors.Is(err, context.Canceled) {
				t.Errorf("Do = %v", err)
			}
		})
		synctest.Wait()
		end()
		g.Wait()
		wg.Wait()
		if _, err, _ := g.Do(t.Context(), "d", fn); !errors.Is(err, context.Canceled) || runs.Load() != 2 {
			t.Errorf("Do after the end = %v, %d runs", err, runs.Load())
		}
	})
}

func TestGroupSurvivesPanics(t *testing.T) {
	g := NewGroup[int](t.Context())
	_, err, _ := g.Do(t.Context(), "a", func(context.Context) (int, error) { panic("boom") })
	var p *PanicError
	if !errors.As(err, &p) || p.Value != "boom" || !strings.Contains(string(p.Stack), "TestGroupSurvivesPanics") {
		t.Errorf("Do = %v; want a PanicError", err)
	}
	if _, err, _ := g.Do(t.Context(), "a", nil); !errors.As(err, &p) {
		t.Errorf("Do of nil = %v; want a PanicError", err)
	}
	_, err, _ = g.Do(t.Context(), "a", func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	if !errors.Is(err, errExited) {
		t.Errorf("Do = %v; want %v", err, errExited)
	}
	if v, err, _ := g.Do(t.Context(), "a", func(context.Context) (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Errorf("Do = %d, %v", v, err)
	}
	g.Wait()
}
