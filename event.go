package certwright

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventIssued          EventKind = "issued"           // a first certificate was issued and stored
	EventRenewed         EventKind = "renewed"          // a certificate was replaced by a new one
	EventAdopted         EventKind = "adopted"          // a certificate was taken from another program or another instance
	EventFailed          EventKind = "failed"           // an attempt failed; Next says when it is tried again
	EventRenewalInfo     EventKind = "renewal_info"     // the CA's suggested window is new or has changed
	EventRevoked         EventKind = "revoked"          // the CA says that the certificate is revoked; it is replaced
	EventExpired         EventKind = "expired"          // the certificate in use has expired
	EventUnmanaged       EventKind = "unmanaged"        // the name is not managed any more
	EventReloaded        EventKind = "reloaded"         // a static certificate's files were read again
	EventStorageDegraded EventKind = "storage_degraded" // something could not be kept in storage
	EventDropped         EventKind = "dropped"          // events were lost for a subscriber that is too slow; Attempt counts them
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

// eventsKept is how many events wait for one subscriber.
const eventsKept = 1024

// Subscribe returns a channel of every event from now on. It is closed when ctx
// ends or the Manager has closed; what was sent before that can still be read.
//
// Up to 1,024 events wait to be read. A subscriber that has fallen further behind
// loses those and finds one EventDropped in their place, which counts them;
// [Manager.Status] then says how things are. It costs neither the Manager nor
// other subscribers anything, and who reads the channel may call Close.
func (m *Manager) Subscribe(ctx context.Context) <-chan Event { return m.events.subscribe(ctx) }

// events sends each event to every subscriber.
type events struct {
	mu       sync.Mutex // guards the fields below and sending; nothing waits under it
	subs     map[chan Event]func() bool
	isClosed bool
}

// subscribe returns a channel that is closed when ctx ends or close is called.
func (e *events) subscribe(ctx context.Context) <-chan Event {
	ch := make(chan Event, eventsKept)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosed {
		close(ch)
		return ch
	}
	if e.subs == nil {
		e.subs = map[chan Event]func() bool{}
	}
	e.subs[ch] = context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.subs[ch] != nil {
			delete(e.subs, ch)
			close(ch)
		}
	})
	return ch
}

// close closes the channels of all subscribers, those to come too.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch, stop := range e.subs {
		stop()
		close(ch)
	}
	e.subs, e.isClosed = nil, true
}

// heard reports whether somebody is told of events.
func (e *events) heard() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subs) > 0
}

// emit never waits.
func (e *events) emit(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ev.Time = time.Now().Round(0)
	for ch := range e.subs {
		select {
		case ch <- ev:
		default:
			ch <- Event{Kind: EventDropped, Time: ev.Time, Attempt: drain(ch)}
			ch <- ev
		}
	}
}

// drain empties ch and returns how many events were lost with that. Only emit
// sends, so that there is room afterwards.
func drain(ch <-chan Event) (lost int) {
	for {
		select {
		case ev := <-ch:
			if ev.Kind == EventDropped {
				lost += ev.Attempt
			} else {
				lost++
			}
		default:
			return lost
		}
	}
}

// listener calls Config.OnEvent.
type listener struct {
	m      *Manager
	events <-chan Event
	failed map[EventKind]bool // kinds for which that was told
}

// run calls OnEvent for each event until there are no more. When a call panics or
// ends its goroutine, another one goes on with the next event.
func (l *listener) run() {
	var ev Event
	isDone := false
	defer func() {
		if isDone {
			return
		}
		l.note(ev.Kind, recover())
		l.m.listening.Go(l.run)
	}()
	for ev = range l.events {
		l.call(ev)
	}
	isDone = true
}

func (l *listener) call(ev Event) {
	defer l.m.calls.begin("Config.OnEvent")()
	l.m.conf.OnEvent(ev)
}

// note tells once for each kind of event that a call did not return. value is
// what it panicked with, nil when it ended its goroutine.
func (l *listener) note(kind EventKind, value any) {
	if l.failed[kind] {
		return
	}
	l.failed[kind] = true
	what := "it called runtime.Goexit"
	if value != nil {
		what = fmt.Sprint(value)
	}
	l.m.log.Error("Config.OnEvent failed; it is called for further events", "event", kind, "err", what, "stack", string(debug.Stack()))
}
