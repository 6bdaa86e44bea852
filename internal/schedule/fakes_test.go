package schedule

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWork notes when it ran, and then does what the test wants.
type fakeWork struct {
	task Task
	name string
	of   *fakes
	due  time.Time // for tests that compare
}

func (w *fakeWork) Schedule() *Task { return &w.task }

func (w *fakeWork) Run(ctx context.Context) { w.of.run(ctx, w) }

func (w *fakeWork) String() string { return w.name }

// fakes is the work of one test.
type fakes struct {
	began time.Time
	do    func(ctx context.Context, w *fakeWork)

	mu   sync.Mutex // guards what follows
	all  map[string]*fakeWork
	runs []string // "name@time since the beginning"
}

func newFakes() *fakes {
	return &fakes{began: time.Now(), all: make(map[string]*fakeWork)}
}

// named returns the work of a name, the same each time.
func (f *fakes) named(name string) *fakeWork {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.all[name]
	if w == nil {
		w = &fakeWork{name: name, of: f}
		f.all[name] = w
	}
	return w
}

func (f *fakes) run(ctx context.Context, w *fakeWork) {
	f.mu.Lock()
	f.runs = append(f.runs, fmt.Sprintf("%s@%v", w.name, time.Since(f.began)))
	f.mu.Unlock()
	if f.do != nil {
		f.do(ctx, w)
	}
}

func (f *fakes) want(t *testing.T, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.runs, want) {
		t.Errorf("ran %q; want %q", f.runs, want)
	}
}

// inBubble runs a test with a queue that runs.
func inBubble(t *testing.T, opts Options, test func(t *testing.T, q *Queue, f *fakes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := New(opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		synctest.Wait()
		test(t, q, newFakes())
		cancel()
		<-done
	})
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

func at(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
