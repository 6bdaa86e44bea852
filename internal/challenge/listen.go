package challenge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// retry is how long a port is left alone that could not be bound.
const retry = 250 * time.Millisecond

// Ports listens for validation requests where nobody else does, only as long
// as a challenge is pending. It is safe for concurrent use.
//
// A port that is taken, or cannot be bound, is left alone: the program may be
// listening there, or on another port that is forwarded. It is tried again four
// times a second for as long as a challenge of its type is pending, since who has
// it may be somebody who lets go of it, such as another Ports. There is one
// goroutine a type, beside those of the connections.
//
// All fields must be set, and none may be changed once in use.
type Ports struct {
	// Addr is the address to bind for a challenge type; ok is false when none
	// is to be bound.
	Addr func(challengeType string) (addr string, ok bool)

	// Patience is how long the program is given to bind the port itself before
	// a listener takes it.
	Patience func(challengeType string) time.Duration

	// Yield is for how long from then on a challenge waits for a port that another
	// has: none where he answers it, and some time where he is another Ports, which
	// lets go of it. It is asked once for a port, when it was found to be taken.
	Yield func(ctx context.Context, challengeType, addr string) time.Duration

	Handler http.Handler // answers http-01
	TLS     *tls.Config  // answers tls-alpn-01

	// Note is told why a port is not listened on, once for a port from the
	// first challenge that wants it to the last. It is called from one goroutine
	// for each type.
	Note func(challengeType string, err error)

	// Go starts a goroutine of the owner's run group. It may do nothing once
	// Context has ended, which closes all listeners.
	Go      func(func())
	Context context.Context

	mu   sync.Mutex       // guards open, and users of each port
	open map[string]*port // by challenge type; the last one, closed or not
}

// port is a port that is listened on, or would be if it were free.
type port struct {
	challengeType, addr string

	users  int
	cancel context.CancelFunc // called when users is none
	before <-chan struct{}    // closed when the one before is closed; nil: none was
	tried  chan struct{}      // closed when the port was tried for the first time
	done   chan struct{}      // closed when the port is closed for good
}

// Open makes sure that somebody listens for challenges of a type, as far as can
// be: when it returns, the port is listened on or was found to be taken for as
// long as is waited for it, or ctx has ended.
// release must be called; it waits until the listener is closed if it was the
// last one's, and more calls of it do nothing.
func (p *Ports) Open(ctx context.Context, challengeType string) (release func()) {
	addr, ok := p.Addr(challengeType)
	if !ok || ctx.Err() != nil {
		return func() {}
	}
	o := p.join(challengeType, addr)
	select {
	case <-o.tried:
	case <-ctx.Done():
	case <-p.Context.Done():
	}
	return sync.OnceFunc(func() { p.release(o) })
}

// join returns the port of a type with one user more.
func (p *Ports) join(challengeType, addr string) *port {
	p.mu.Lock()
	o := p.open[challengeType]
	if o != nil && o.users > 0 {
		o.users++
		p.mu.Unlock()
		return o
	}
	next := &port{challengeType: challengeType, addr: addr, users: 1, tried: make(chan struct{}), done: make(chan struct{})}
	if o != nil {
		next.before = o.done
	}
	ctx, cancel := context.WithCancel(p.Context)
	next.cancel = cancel
	if p.open == nil {
		p.open = map[string]*port{}
	}
	p.open[challengeType] = next
	p.mu.Unlock()
	p.Go(func() { p.keep(ctx, next) })
	return next
}

func (p *Ports) release(o *port) {
	p.mu.Lock()
	o.users--
	last := o.users == 0
	p.mu.Unlock()
	if !last {
		return
	}
	o.cancel()
	select {
	case <-o.done:
	case <-p.Context.Done(): // it may never have begun
	}
}

// keep listens on a port whenever it can, until ctx ends.
func (p *Ports) keep(ctx context.Context, o *port) {
	defer close(o.done)
	if o.before != nil {
		<-o.before
	}
	p.await(ctx, o)
	var once sync.Once
	tried := func() { once.Do(func() { close(o.tried) }) }
	defer tried()
	told := false
	var yield time.Time
	for ctx.Err() == nil {
		err := p.listen(ctx, o, tried)
		if ctx.Err() == nil && !told {
			told = true
			p.Note(o.challengeType, err)
			yield = time.Now().Add(p.yieldFor(ctx, o, err))
		}
		if !time.Now().Before(yield) {
			tried()
		}
		pause(ctx, retry)
	}
}

// yieldFor returns for how long a port is waited for that could not be bound.
func (p *Ports) yieldFor(ctx context.Context, o *port, err error) time.Duration {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return 0
	}
	return p.Yield(ctx, o.challengeType, o.addr)
}

// await waits until the program has bound the port or its time is over. It looks
// without binding, so that it is never in the program's way.
func (p *Ports) await(ctx context.Context, o *port) {
	for end := time.Now().Add(p.Patience(o.challengeType)); time.Now().Before(end) && !accepts(ctx, o.addr); {
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// accepts reports whether somebody listens at addr.
func accepts(ctx context.Context, addr string) bool {
	addr, err := Reachable(addr)
	if err != nil {
		return false
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written
	return true
}

// Reachable returns the address at which to reach what listens on addr.
func Reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), err
}

// listen binds the port, calls bound and serves until ctx ends. Then the listener
// and all its connections are closed.
func (p *Ports) listen(ctx context.Context, o *port, bound func()) error {
	var conf net.ListenConfig
	ln, err := conf.Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	bound()
	if o.challengeType == TLSALPN01 {
		ln = tls.NewListener(ln, p.TLS)
	}
	srv := &http.Server{
		Handler:           p.Handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers' handshakes
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = srv.Close() // nothing is left to be served
	})
	err = srv.Serve(ln)
	if stop() {
		return errors.Join(err, srv.Close())
	}
	<-closed
	return err
}
