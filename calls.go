package certwright

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/guard"
)

// calls are those of code of the caller's that are no flights: so that they cost
// nobody more than a bounded time, and Close can name those that do not return.
// The zero value is ready. It is safe for concurrent use.
type calls struct {
	mu      sync.Mutex     // guards the fields below
	running map[string]int // how many there are, by what they do
	none    chan struct{}  // closed when none is running any more; nil: nobody waits for that
}

// begin notes a call until end is called.
func (c *calls) begin(what string) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = map[string]int{}
	}
	c.running[what]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[what]--; c.running[what] == 0 {
			delete(c.running, what)
		}
		if len(c.running) == 0 && c.none != nil {
			close(c.none)
			c.none = nil
		}
	}
}

// do calls f and returns its error: also that it panicked or ended its goroutine,
// and that it has not returned in time. Then it goes on by itself.
func (c *calls) do(what string, patience time.Duration, f func() error) error {
	end := c.begin(what)
	done := guard.Call(nil, "it", func() error {
		defer end()
		return f()
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("it has not returned within %v", patience)
	}
}

// names says what the calls do that are running.
func (c *calls) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.running))
}

// wait returns when none is running. It is called once.
func (c *calls) wait() {
	c.mu.Lock()
	none := make(chan struct{})
	if len(c.running) == 0 {
		close(none)
	} else {
		c.none = none
	}
	c.mu.Unlock()
	<-none
}
