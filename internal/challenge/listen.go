package challenge

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Ports listens for validation requests where nobody else does, only as long
// as a challenge is pending. It is safe for concurrent use.
//
// The functions must all be set, and no field may be changed once in use.
type Ports struct {
	// Addr is the address to bind for a challenge type; ok is false when none
	// is to be bound.
	Addr func(challengeType string) (addr string, ok bool)

	// Serving reports whether the program itself was seen to answer challenges
	// of a type, and Patience how long it is given to bind the port itself
	// before a listener takes it.
	Serving  func(challengeType string) bool
	Patience func(challengeType string) time.Duration

	Handler http.Handler // answers http-01
	TLS     *tls.Config  // answers tls-alpn-01
	Note    func(challengeType string, err error)

	// mu guards open and opened. It is held while a port is bound and closed,
	// so that a port that is just being given back is never taken for the
	// program's.
	mu     sync.Mutex
	open   map[string]*port
	opened int // how many ports were opened so far
}

// port is an open listener with its users.
type port struct {
	users int
	ln    net.Listener
	srv   *http.Server
	done  chan struct{}
}

// Open makes sure that somebody listens for challenges of a type. A port that
// is taken or cannot be bound is left alone: the program may be listening
// there, or on another port that is forwarded. Nothing is opened when ctx has
// ended. release must be called; it waits until the listener is closed, and
// more calls of it do nothing.
func (p *Ports) Open(ctx context.Context, challengeType string) (release func()) {
	addr, ok := p.Addr(challengeType)
	if !ok || p.Serving(challengeType) {
		return func() {}
	}
	if p.taken(ctx, challengeType, addr) || ctx.Err() != nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.open[challengeType]; o != nil {
		o.users++
		return sync.OnceFunc(func() { p.release(challengeType, o) })
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		p.Note(challengeType, err)
		return func() {}
	}
	o := p.serve(challengeType, ln)
	if p.open == nil {
		p.open = map[string]*port{}
	}
	p.open[challengeType] = o
	p.opened++
	return sync.OnceFunc(func() { p.release(challengeType, o) })
}

// taken waits for the program to bind the port and reports whether it did.
func (p *Ports) taken(ctx context.Context, challengeType, addr string) bool {
	const pause = 50 * time.Millisecond
	for end := time.Now().Add(p.Patience(challengeType)); time.Now().Before(end); {
		ours, before := p.ours(challengeType)
		if ours {
			return false
		}
		if accepts(ctx, addr) {
			// Another challenge may have opened the port meanwhile.
			if _, after := p.ours(challengeType); after == before {
				return true
			}
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// ours reports whether this Ports listens for a type, and how many ports it
// opened so far.
func (p *Ports) ours(challengeType string) (open bool, opened int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[challengeType] != nil, p.opened
}

// accepts reports whether somebody listens at addr. It looks without binding,
// so that it is never in the program's way.
func accepts(ctx context.Context, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written
	return true
}

func (p *Ports) serve(challengeType string, ln net.Listener) *port {
	if challengeType == TLSALPN01 {
		ln = tls.NewListener(ln, p.TLS)
	}
	o := &port{users: 1, ln: ln, done: make(chan struct{})}
	o.srv = &http.Server{
		Handler:           p.Handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          quietLog(),
	}
	go func() {
		defer close(o.done)
		if err := o.srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.Note(challengeType, err)
		}
	}()
	return o
}

func (p *Ports) release(challengeType string, o *port) {
	p.mu.Lock()
	o.users--
	last := o.users == 0
	if last {
		delete(p.open, challengeType)
		_ = o.srv.Close() // the listener; nothing is left to be served
	}
	p.mu.Unlock()
	if last {
		<-o.done
	}
}
