package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/keyed"
)

const (
	// DefaultTTL is the TTL of the zero Options.
	DefaultTTL = 30 * time.Second

	minTTL = 50 * time.Millisecond
	maxTTL = time.Hour

	// beatsPerTTL is how many heartbeats a TTL has.
	beatsPerTTL = 3

	// patience is how long Unlock and Close wait for a file system that hangs.
	patience = 10 * time.Second
)

// Options is how a Folder works.
type Options struct {
	// TTL is how long the heartbeat of a lock that is taken here has to stand
	// still before others may take it over. Zero means DefaultTTL; anything else
	// is brought between 50 milliseconds and an hour. Folders of one path need
	// not agree on it.
	TTL time.Duration
}

// Folder is all locks below one folder, for one process. It is safe for
// concurrent use. Two Folders of one path exclude each other as two processes do.
type Folder struct {
	dir      string
	ttl      time.Duration
	boot     string                              // ID of this boot of the kernel; empty: unknown
	link     func(oldname, newname string) error // os.Link but in tests
	patience time.Duration

	queue   keyed.Mutex     // those of this process who want one lock
	closing context.Context // ends at Close
	close   context.CancelCauseFunc
	calls   sync.WaitGroup // of Lock, Tidy and the heartbeat

	mu     sync.Mutex // guards what follows
	closed bool
	held   map[*Lock]struct{}
	beats  *time.Timer         // runs while something is held
	quiet  map[string]sighting // what Tidy saw in locks that may be dead, by path
}

// New returns the locks below the folder dir, which is made when it is missing
// and first needed; the folder above it is not. The caller closes the Folder.
func New(dir string, o Options) *Folder {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	f := &Folder{
		dir:      dir,
		ttl:      min(max(o.TTL, minTTL), maxTTL),
		boot:     bootID(),
		link:     os.Link,
		patience: patience,
		held:     make(map[*Lock]struct{}),
		quiet:    make(map[string]sighting),
	}
	f.closing, f.close = context.WithCancelCause(context.Background())
	return f
}

// Lock waits until it holds the lock of that name, of at most a few thousand
// bytes of any kind. Within the Folder those who wait get it in the order in
// which they came; among processes there is no order. ctx bounds the wait only:
// its end does not touch a lock that is held. The error wraps the cause of ctx's
// end, fs.ErrClosed after Close, or what the file system said about which path.
// A holder that locks the name again waits for itself.
func (f *Folder) Lock(ctx context.Context, name string) (*Lock, error) {
	l, err := f.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	return l, nil
}

func (f *Folder) lock(ctx context.Context, name string) (*Lock, error) {
	if !f.enter() {
		return nil, f.closedError()
	}
	defer f.calls.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.closing, func() { cancel(f.closedError()) })()

	leave, err := f.queue.Lock(ctx, name)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	t := &taker{folder: f, dir: filepath.Join(f.dir, folderName(name))}
	l, err := t.wait(ctx)
	if err != nil {
		leave()
		return nil, err
	}
	l.leave = leave
	if !f.add(l) {
		return nil, errors.Join(f.closedError(), l.Unlock())
	}
	return l, nil
}

// Close ends the waits, gives up what is held, whose holders find it lost, and
// waits until all is done. The error says that the file system did not answer
// within ten seconds. Further calls do nothing.
func (f *Folder) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	held := slices.Collect(maps.Keys(f.held))
	f.mu.Unlock()
	f.close(f.closedError())
	for _, l := range held {
		l.end(fmt.Errorf("%w: %w", ErrLost, f.closedError()))
	}
	err := f.within(func() error {
		for _, l := range held {
			_ = l.Unlock() // ErrLost
		}
		f.calls.Wait()
		return nil
	})
	if err != nil {
		return fmt.Errorf("closing locks in folder %q: %w", f.dir, err)
	}
	return nil
}

// within returns what do does, or an error when that takes too long.
func (f *Folder) within(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	late := time.NewTimer(f.patience)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("no answer from the file system for %v; check that folder %q can be reached: %w",
			f.patience, f.dir, context.DeadlineExceeded)
	}
}

func (f *Folder) closedError() error {
	return fmt.Errorf("folder of locks %q: %w", f.dir, fs.ErrClosed)
}

// enter counts a call in that Close waits for. It reports false once closed.
func (f *Folder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.calls.Add(1)
	return true
}

// add has the heartbeat look after l. It reports false once closed.
func (f *Folder) add(l *Lock) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.held[l] = struct{}{}
	if len(f.held) == 1 {
		f.beats = time.AfterFunc(f.ttl/beatsPerTTL, f.beat)
	}
	return true
}

// forget is the end of add.
func (f *Folder) forget(l *Lock) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, l)
	if len(f.held) == 0 && f.beats != nil {
		f.beats.Stop()
	}
}

// beat writes the heartbeat of all that is held.
func (f *Folder) beat() {
	if !f.enter() {
		return
	}
	defer f.calls.Done()
	begun := time.Now()
	f.mu.Lock()
	held := slices.Collect(maps.Keys(f.held))
	f.mu.Unlock()
	for _, l := range held {
		l.beat()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.held) > 0 && !f.closed {
		f.beats.Reset(max(f.ttl/beatsPerTTL-time.Since(begun), f.ttl/100))
	}
}
