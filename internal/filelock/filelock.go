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
	// DefaultTTL is the TTL when none is given.
	DefaultTTL = 30 * time.Second

	minTTL = 50 * time.Millisecond
	maxTTL = time.Hour

	// beatsPerTTL is how many heartbeats a TTL has.
	beatsPerTTL = 3
)

// Folder is all locks below one folder, for one process. It is safe for
// concurrent use. Two Folders of one path exclude each other as two processes do.
type Folder struct {
	dir    string
	ttl    time.Duration
	boot   string                              // ID of this boot of the kernel; empty: unknown
	create func(path string) (*os.File, error) // of a new file; another one in tests
	link   func(old, name string) error        // as os.Link; another one in tests

	queue   keyed.Mutex     // those of this process who want one lock
	closing context.Context // ends at Close
	close   context.CancelCauseFunc
	calls   sync.WaitGroup // of Lock, Tidy and the heartbeat

	mu    sync.Mutex // guards what follows, and calls against the end of closing
	held  map[*Lock]struct{}
	beats *time.Timer         // runs while something is held
	quiet map[string]sighting // what Tidy saw in locks that may be dead, by path
}

// New returns the locks below the folder dir, which is made when it is missing
// and first needed; the folder above it is not. ttl is how long the heartbeat of
// a lock that is taken here has to stand still before others may take it over.
// Zero means DefaultTTL; anything else is brought between 50 milliseconds and an
// hour. Folders of one path need not agree on it. The caller closes the Folder.
func New(dir string, ttl time.Duration) *Folder {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	f := &Folder{dir: dir, ttl: min(max(ttl, minTTL), maxTTL), boot: bootID(), create: create, link: os.Link, held: make(map[*Lock]struct{})}
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
	ctx, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	next, err := f.queue.Lock(ctx, name)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	t := &taker{folder: f, dir: filepath.Join(f.dir, folderName(name))}
	l, err := t.wait(ctx)
	if err != nil {
		next()
		return nil, err
	}
	l.next = next
	f.mu.Lock()
	f.held[l] = struct{}{}
	if len(f.held) == 1 {
		f.beats = time.AfterFunc(f.ttl/beatsPerTTL, f.beat)
	}
	f.mu.Unlock()
	if f.closing.Err() != nil {
		return nil, errors.Join(f.closedError(), l.Unlock())
	}
	return l, nil
}

// Close ends the waits, gives up what is held, whose holders find it lost, and
// waits until all is done, for as long as the file system takes. Further calls
// do nothing more.
func (f *Folder) Close() {
	f.mu.Lock()
	f.close(f.closedError())
	held := slices.Collect(maps.Keys(f.held))
	f.mu.Unlock()
	for _, l := range held {
		_ = l.Unlock() // ErrLost
	}
	f.calls.Wait()
}

func (f *Folder) closedError() error {
	return fmt.Errorf("folder of locks %q: %w", f.dir, fs.ErrClosed)
}

// enter begins a call that Close waits for, with a context that Close ends.
func (f *Folder) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing.Err() != nil {
		return nil, nil, f.closedError()
	}
	f.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(f.closing, func() { cancel(f.closedError()) })
	return ctx, func() {
		stop()
		cancel(nil)
		f.calls.Done()
	}, nil
}

// forget takes l out of what the heartbeat looks after.
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
	begun := time.Now()
	f.mu.Lock()
	if f.closing.Err() != nil {
		f.mu.Unlock()
		return
	}
	f.calls.Add(1)
	defer f.calls.Done()
	held := slices.Collect(maps.Keys(f.held))
	f.mu.Unlock()
	for _, l := range held {
		l.beat()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.held) > 0 {
		f.beats.Reset(max(f.ttl/beatsPerTTL-time.Since(begun), f.ttl/100))
	}
}
