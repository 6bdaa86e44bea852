package challenge_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/challenge"
)

// ports returns Ports for one free loopback address, whatever the type.
func ports(t *testing.T) (p *challenge.Ports, addr string, notes *atomic.Int32) {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	addr = ln.Addr().String()
	_ = ln.Close()
	p, notes = portsAt(newGroup(t), addr, "ours")
	return p, addr, notes
}

// portsAt returns Ports for addr, whose handler says name.
func portsAt(g *group, addr, name string) (p *challenge.Ports, notes *atomic.Int32) {
	notes = new(atomic.Int32)
	return &challenge.Ports{
		Addr:     func(string) (string, bool) { return addr, true },
		Patience: func(string) time.Duration { return 0 },
		Yield:    func(context.Context, string, string) time.Duration { return 0 },
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }),
		Note:     func(string, error) { notes.Add(1) },
		Go:       g.spawn, Context: g.ctx,
	}, notes
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func fetch(t *testing.T, addr string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + addr + challenge.PathPrefix + "tok")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// fetched waits until name answers at addr.
func fetched(t *testing.T, addr, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got := fetch(t, addr)
		if got == name {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %q, want %q", got, name)
		}
	}
}

// program serves at ln until the test ends.
func program(t *testing.T, ln net.Listener) *http.Server {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "program") })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return srv
}

func TestListensAsLongAsAChallengeIsPending(t *testing.T) {
	p, addr, notes := ports(t)
	first := p.Open(t.Context(), challenge.HTTP01)
	second := p.Open(t.Context(), challenge.HTTP01)
	if got := fetch(t, addr); got != "ours" {
		t.Fatalf("got %q", got)
	}
	first()
	first() // does nothing
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("closed while it was in use: %q", got)
	}
	second()
	_ = listen(t, addr).Close() // it is free at once
	third := p.Open(t.Context(), challenge.HTTP01)
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("opened again: %q", got)
	}
	third()
	if notes.Load() != 0 {
		t.Errorf("%d notes", notes.Load())
	}
}

// A client that keeps its connection does not keep the port.
func TestReleaseDropsConnections(t *testing.T) {
	p, addr, _ := ports(t)
	release := p.Open(t.Context(), challenge.HTTP01)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	release()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still served")
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was left open")
	}
}

func TestLeavesAPortAloneThatTheProgramHas(t *testing.T) {
	for name, patience := range map[string]time.Duration{"without patience": 0, "with patience": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			p, addr, notes := ports(t)
			p.Patience = func(string) time.Duration { return patience }
			program(t, listen(t, addr))
			release := p.Open(t.Context(), challenge.HTTP01)
			again := p.Open(t.Context(), challenge.HTTP01)
			for notes.Load() == 0 { // it was tried
				time.Sleep(time.Millisecond)
			}
			if got := fetch(t, addr); got != "program" {
				t.Errorf("got %q", got)
			}
			again()
			release()
			if got := fetch(t, addr); got != "program" || notes.Load() != 1 {
				t.Errorf("got %q, %d notes", got, notes.Load())
			}
		})
	}
}

// F66: the port is had by another as long as he wants it, and taken as soon as he
// lets go of it.
func TestTakesThePortOverFromAnother(t *testing.T) {
	a, addr, _ := ports(t)
	b, notes := portsAt(newGroup(t), addr, "theirs")
	first := a.Open(t.Context(), challenge.HTTP01)
	second := b.Open(t.Context(), challenge.HTTP01)
	third := b.Open(t.Context(), challenge.HTTP01)
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("the first one lost its port: %q", got)
	}
	first()
	fetched(t, addr, "theirs")
	first = a.Open(t.Context(), challenge.HTTP01)
	second()
	if got := fetch(t, addr); got != "theirs" {
		t.Errorf("closed while it was in use: %q", got)
	}
	third()
	fetched(t, addr, "ours")
	first()
	_ = listen(t, addr).Close()
	if notes.Load() != 1 {
		t.Errorf("%d notes", notes.Load())
	}
}

// F66: a challenge is not asked about while a port is another's who knows nothing of
// it and lets go of it.
func TestWaitsForAPortThatAnotherLetsGoOf(t *testing.T) {
	a, addr, _ := ports(t)
	b, notes := portsAt(newGroup(t), addr, "theirs")
	b.Yield = func(_ context.Context, challengeType, at string) time.Duration {
		if challengeType != challenge.HTTP01 || at != addr {
			t.Errorf("asked about %s at %s", challengeType, at)
		}
		return time.Hour
	}
	first := a.Open(t.Context(), challenge.HTTP01)
	opened := make(chan func())
	go func() { opened <- b.Open(t.Context(), challenge.HTTP01) }()
	for notes.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-opened:
		t.Fatal("the port of another was leaned on")
	default:
	}
	first()
	second := <-opened
	if got := fetch(t, addr); got != "theirs" {
		t.Errorf("got %q", got)
	}
	second()
}

// F66: a program that stops serving while a challenge is pending.
func TestTakesThePortOverFromTheProgram(t *testing.T) {
	p, addr, _ := ports(t)
	srv := program(t, listen(t, addr))
	release := p.Open(t.Context(), challenge.HTTP01)
	defer release()
	fetched(t, addr, "program")
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	fetched(t, addr, "ours")
}

func TestTheEndOfTheRunGroupClosesThePort(t *testing.T) {
	_, addr, _ := ports(t)
	g := newGroup(t)
	p, _ := portsAt(g, addr, "ours")
	release := p.Open(t.Context(), challenge.HTTP01)
	fetched(t, addr, "ours")
	g.end()
	_ = listen(t, addr).Close()
	release()
	p.Open(t.Context(), challenge.HTTP01)() // nothing is started any more
	p.Open(t.Context(), challenge.TLSALPN01)()
	_ = listen(t, addr).Close()
}

// The program binds the port while it is waited for.
func TestThePatienceLetsTheProgramBind(t *testing.T) {
	p, addr, _ := ports(t)
	asked := make(chan struct{})
	p.Patience = func(string) time.Duration { close(asked); return 30 * time.Second }
	opened := make(chan func())
	go func() { opened <- p.Open(t.Context(), challenge.HTTP01) }()
	<-asked
	ln := listen(t, addr)
	release := <-opened
	release()
	if _, err := net.Listen("tcp", addr); err == nil {
		t.Error("the program's listener is gone")
	}
	_ = ln.Close()
}

func TestListensWhenThePatienceEnds(t *testing.T) {
	p, addr, _ := ports(t)
	p.Patience = func(string) time.Duration { return 120 * time.Millisecond }
	start := time.Now()
	release := p.Open(t.Context(), challenge.HTTP01)
	if took := time.Since(start); took < 120*time.Millisecond {
		t.Errorf("the program was given %v", took)
	}
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("got %q", got)
	}
	// Who comes later does not wait for a program that did not come.
	p.Patience = func(string) time.Duration { return time.Minute }
	start = time.Now()
	again := p.Open(t.Context(), challenge.HTTP01)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	release()
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("the second user lost the port: %q", got)
	}
	again()
}

func TestTheContextEndsThePatience(t *testing.T) {
	p, addr, _ := ports(t)
	p.Patience = func(string) time.Duration { return time.Minute }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	release := p.Open(ctx, challenge.HTTP01)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	_ = listen(t, addr).Close() // nothing was opened
	release()
}

func TestOpensNothingWithoutAnAddress(t *testing.T) {
	p, addr, notes := ports(t)
	p.Addr = func(string) (string, bool) { return addr, false }
	release := p.Open(t.Context(), challenge.HTTP01)
	_ = listen(t, addr).Close()
	release()
	if notes.Load() != 0 {
		t.Errorf("%d notes", notes.Load())
	}
}

// A port that cannot be bound is reported and stops nothing.
func TestAPortThatCannotBeBoundIsReportedOnce(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:80", "127.0.0.1:99999", "nonsense"} {
		p, _, notes := ports(t)
		p.Addr = func(string) (string, bool) { return addr, true }
		p.Patience = func(string) time.Duration { return time.Millisecond }
		p.Open(t.Context(), challenge.HTTP01)()
		if notes.Load() != 1 {
			t.Errorf("%s: %d notes", addr, notes.Load())
		}
	}
}

func TestListensForValidationHandshakes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	table := challenge.New(challenge.Options{Cert: func(string, string) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}})
	p, addr, _ := ports(t)
	p.TLS = &tls.Config{
		NextProtos: []string{"acme-tls/1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return table.Certificate(h.Context(), h.ServerName)
		},
	}
	release := p.Open(t.Context(), challenge.TLSALPN01)
	defer release()
	validate := func() error {
		d := tls.Dialer{Config: &tls.Config{ServerName: "a.example.com", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}}
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "acme-tls/1" {
			t.Errorf("protocol %q", got)
		}
		return conn.Close()
	}
	if err := validate(); err == nil {
		t.Error("a handshake without a challenge was answered")
	}
	present(t, table, alpnChallenge("a.example.com", "tok"))
	if err := validate(); err != nil {
		t.Errorf("handshake: %v", err)
	}
}

func TestManyOpenAPortAtOnce(t *testing.T) {
	for name, patience := range map[string]time.Duration{"without patience": 0, "with patience": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			p, addr, notes := ports(t)
			p.Patience = func(string) time.Duration { return patience }
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 20 {
						release := p.Open(t.Context(), challenge.HTTP01)
						if got := fetch(t, addr); got != "ours" {
							t.Errorf("got %q", got)
						}
						release()
					}
				})
			}
			wg.Wait()
			if notes.Load() != 0 {
				t.Errorf("%d notes", notes.Load())
			}
			_ = listen(t, addr).Close()
		})
	}
}

// Who comes while the port is just being given back has it again.
func TestOpensAgainWhatIsBeingClosed(t *testing.T) {
	p, addr, notes := ports(t)
	var wg sync.WaitGroup
	release := p.Open(t.Context(), challenge.HTTP01)
	for range 500 {
		wg.Go(release)
		runtime.Gosched()
		release = p.Open(t.Context(), challenge.HTTP01)
	}
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("got %q", got)
	}
	release()
	wg.Wait()
	if notes.Load() != 0 {
		t.Errorf("%d notes: the port was in its own way", notes.Load())
	}
}
