package keyed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustLock(t *testing.T, m *Mutex, key string) func() {
	t.Helper()
	unlock, err := m.Lock(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func TestMutexExcludes(t *testing.T) {
	var m Mutex
	counts := make([]int, 3) // each guarded by its key's lock
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			for range 100 {
				unlock, err := m.Lock(t.Context(), fmt.Sprint(i%3))
				if err != nil {
					t.Error(err)
					return
				}
				counts[i%3]++
				unlock()
			}
		})
	}
	wg.Wait()
	for i, n := range counts {
		if n != 1000 {
			t.Errorf("key %d: counted %d; want 1000", i, n)
		}
	}
	if len(m.locks) != 0 {
		t.Errorf("%d locks are left", len(m.locks))
	}
}

func TestMutexIsFairAndByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mutex
		unlock := mustLock(t, &m, "a")
		mustLock(t, &m, "b")() // another key does not wait
		order := make(chan int, 5)
		for i := range 5 {
			go func() {
				unlock, err := m.Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				unlock()
			}()
			synctest.Wait()
		}
		unlock()
		unlock() // does nothing
		for want := range 5 {
			if got := <-order; got != want {
				t.Errorf("waiter %d came in place of %d", got, want)
			}
		}
		synctest.Wait()
		if len(m.locks) != 0 {
			t.Errorf("%d locks are left", len(m.locks))
		}
	})
}

func TestMutexWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mutex
		unlock := mustLock(t, &m, "a")
		cause := errors.New("tired")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		began := time.Now()
		got, err := m.Lock(ctx, "a")
		if got != nil || !errors.Is(err, cause) {
			t.Errorf("Lock = %v; want %v", err, cause)
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		unlock()
		if len(m.locks) != 0 {
			t.Errorf("%d locks are left", len(m.locks))
		}
		if _, err := m.Lock(ctx, "a"); !errors.Is(err, cause) {
			t.Errorf("Lock with an ended context = %v", err)
		}
		mustLock(t, &m, "a")()
	})
}
