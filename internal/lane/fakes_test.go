package lane_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/lane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// notes are what happened in a test, each with the time since its beginning.
type notes struct {
	began time.Time

	mu  sync.Mutex // guards all
	all []string
}

func newNotes() *notes { return &notes{began: time.Now()} }

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, fmt.Sprintf(format, args...)+"@"+time.Since(n.began).String())
}

// want compares what happened until now, without regard to the order of what
// happened at one time.
func (n *notes) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.Sort(n.all)
	slices.Sort(want)
	if !slices.Equal(n.all, want) {
		t.Errorf("got  %q\nwant %q", n.all, want)
	}
	n.all = nil
}

// flight notes "name" as it takes off and "name: error" when it is done, without
// the error when there is none.
func (n *notes) flight(ctx context.Context, name string, do func(context.Context) error) *lane.Flight {
	return &lane.Flight{
		Name:    name,
		Context: ctx,
		Do: func(ctx context.Context) error {
			n.add("%s", name)
			return do(ctx)
		},
		Done: func(err error) {
			if err != nil {
				n.add("%s: %v", name, err)
				return
			}
			n.add("%s done", name)
		},
	}
}

// quietly notes only the take-off.
func (n *notes) quietly(ctx context.Context, name string, do func(context.Context) error) *lane.Flight {
	f := n.flight(ctx, name, do)
	f.Done = func(error) {}
	return f
}

// works takes so long and then returns nil.
func works(d time.Duration) func(context.Context) error {
	return func(context.Context) error {
		time.Sleep(d)
		return nil
	}
}

// obeys returns when its context ends.
func obeys(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// status is the numbers of a Status in short.
func status(l *lane.Lane) string {
	synctest.Wait()
	s := l.Status()
	return fmt.Sprintf("running %d slow %d parked %d queued %d abandoned %d",
		s.Running, s.Slow, s.Parked, s.Queued, len(s.Abandoned))
}

func wantStatus(t *testing.T, l *lane.Lane, want string) {
	t.Helper()
	if got := status(l); got != want {
		t.Errorf("status: %s; want %s", got, want)
	}
}

// at lets time pass, and all that then happens.
func at(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errTest = errors.New("test")
