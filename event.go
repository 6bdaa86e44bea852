package certwright

import (
	"context"
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventIssued          EventKind = "issued"           // a first certificate was issued and stored
	EventRenewed         EventKind = "renewed"          // a certificate was replaced by a new one
	EventAdopted         EventKind = "adopted"          // a certificate was taken from storage
	EventFailed          EventKind = "failed"           // an attempt failed; Next says when it is tried again
	EventRenewalInfo     EventKind = "renewal_info"     // the CA's suggested window is new or has changed
	EventRevoked         EventKind = "revoked"          // the CA says that the certificate is revoked; it is replaced
	EventExpired         EventKind = "expired"          // the certificate in use has expired
	EventUnmanaged       EventKind = "unmanaged"        // the name is not managed any more
	EventReloaded        EventKind = "reloaded"         // a static certificate's files were read again
	EventStorageDegraded EventKind = "storage_degraded" // something could not be kept in storage
	EventDropped         EventKind = "dropped"          // events were lost because a subscriber was too slow; Attempt counts them
)

// Event is something that happened to a certificate. Fields that do not apply
// are zero.
type Event struct {
	Kind     EventKind
	Time     time.Time
	Name     string   // the name, or the first of several in one certificate
	Names    []string // all names of the certificate; not to be changed
	Issuer   string   // issuer ID
	Serial   string   // serial number in hexadecimal
	NotAfter time.Time
	Attempt  int       // failed attempts in a row
	Next     time.Time // what happens next is due then
	Err      error
}

// eventQueue is how many events wait for slow subscribers before the oldest
// are dropped.
const eventQueue = 4096

// events hands events to subscribers on a goroutine of its own.
type events struct {
	mu      sync.Mutex // guards the fields below
	queue   []Event
	dropped int
	subs    map[int]func(Event)
	nextSub int
	wake    chan struct{}
}

func newEvents() *events {
	return &events{subs: map[int]func(Event){}, wake: make(chan struct{}, 1)}
}

func (e *events) subscribe(f func(Event)) (cancel func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.nextSub
	e.nextSub++
	e.subs[id] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, id)
	}
}

// heard reports whether somebody is told of events.
func (e *events) heard() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subs) > 0
}

// emit never blocks.
func (e *events) emit(ev Event) {
	e.mu.Lock()
	if len(e.subs) == 0 {
		e.mu.Unlock()
		return
	}
	if ev.Time.IsZero() {
		ev.Time = time.Now().Round(0)
	}
	if len(e.queue) >= eventQueue {
		e.queue = append(e.queue[:0], e.queue[1:]...)
		e.dropped++
	}
	e.queue = append(e.queue, ev)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends, and then what is still queued.
func (e *events) run(ctx context.Context) {
	for {
		select {
		case <-e.wake:
			e.deliver()
		case <-ctx.Done():
			e.deliver()
			return
		}
	}
}

func (e *events) deliver() {
	for {
		e.mu.Lock()
		batch, dropped := e.queue, e.dropped
		e.queue, e.dropped = nil, 0
		subs := make([]func(Event), 0, len(e.subs))
		for i := range e.nextSub {
			if f := e.subs[i]; f != nil {
				subs = append(subs, f)
			}
		}
		e.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		if dropped > 0 {
			batch = append([]Event{{Kind: EventDropped, Time: time.Now().Round(0), Attempt: dropped}}, batch...)
		}
		for _, ev := range batch {
			for _, f := range subs {
				f(ev)
			}
		}
	}
}
