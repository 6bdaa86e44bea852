package storagetest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a testing.TB that takes down a check's failure instead of failing.
type recorder struct {
	testing.TB
	wait time.Duration // how long it waits for what must happen

	mu       sync.Mutex // guards failures, skipped, cleanups
	failures []string
	skipped  bool
	cleanups []func()
}

func (r *recorder) patience() time.Duration { return r.wait }

func (r *recorder) Helper()             {}
func (r *recorder) Log(...any)          {}
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatal(args ...any) {
	r.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(...any) {
	r.skipped = true
	runtime.Goexit()
}

// record runs one check and returns what it found wrong.
func record(t *testing.T, checks []check, name string, b Backend) []string {
	t.Helper()
	return recordFor(t, patience, find(t, checks, name), b)
}

func find(t *testing.T, checks []check, name string) check {
	t.Helper()
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check %q", name)
	}
	return checks[i]
}

func recordFor(t *testing.T, wait time.Duration, c check, b Backend) []string {
	t.Helper()
	r := &recorder{TB: t, wait: wait}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(r, b)
	}()
	<-done
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	if r.skipped {
		t.Fatalf("the check %q was skipped", c.name)
	}
	return r.failures
}

// fault is a fault and what the kit makes of it: which check fails, and a part of
// what it says.
type fault struct {
	name, check, about string
	backend            Backend
}

// wantCaught checks that the kit finds the fault.
func wantCaught(t *testing.T, checks []check, f fault) {
	t.Helper()
	failures := recordFor(t, 2*time.Second, find(t, checks, f.check), f.backend)
	if len(failures) == 0 {
		t.Errorf("the check %q finds nothing wrong", f.check)
	} else if !strings.Contains(strings.Join(failures, "\n"), f.about) {
		t.Errorf("the check %q says nothing of %q:\n%s", f.check, f.about, strings.Join(failures, "\n"))
	}
}

// wantAllCaught checks that the kit finds each of the faults.
func wantAllCaught(t *testing.T, checks []check, faults []fault) {
	t.Helper()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			wantCaught(t, checks, f)
		})
	}
}
