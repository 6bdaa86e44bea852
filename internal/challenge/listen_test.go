package challenge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ports returns Ports for one free loopback address, whatever the type.
func ports(t *testing.T) (p *Ports, addr string, notes *atomic.Int32) {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	addr = ln.Addr().String()
	_ = ln.Close()
	notes = new(atomic.Int32)
	return &Ports{
		Addr:     func(string) (string, bool) { return addr, true },
		Serving:  func(string) bool { return false },
		Patience: func(string) time.Duration { return 0 },
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ours") }),
		Note:     func(string, error) { notes.Add(1) },
	}, addr, notes
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
	resp, err := c.Get("http://" + addr + PathPrefix + "tok")
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

func TestPorts_OpenAndRelease(t *testing.T) {
	p, addr, notes := ports(t)
	first := p.Open(t.Context(), HTTP01)
	second := p.Open(t.Context(), HTTP01)
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
	third := p.Open(t.Context(), HTTP01)
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("opened again: %q", got)
	}
	third()
	if notes.Load() != 0 {
		t.Errorf("%d notes", notes.Load())
	}
}

// A client that keeps its connection does not keep the port.
func TestPorts_ReleaseDropsConnections(t *testing.T) {
	p, addr, _ := ports(t)
	release := p.Open(t.Context(), HTTP01)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	release()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still served")
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the connection was left open")
	}
}

func TestPorts_TakenByTheProgram(t *testing.T) {
	p, addr, notes := ports(t)
	ln := listen(t, addr)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "program") })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-done }()

	release := p.Open(t.Context(), HTTP01) // without patience it finds out by trying
	if got := fetch(t, addr); got != "program" || notes.Load() != 1 {
		t.Errorf("got %q, %d notes", got, notes.Load())
	}
	release()
	p.Patience = func(string) time.Duration { return 10 * time.Second }
	start := time.Now()
	release = p.Open(t.Context(), HTTP01)
	if took := time.Since(start); took > 5*time.Second || notes.Load() != 1 {
		t.Errorf("took %v, %d notes: the program is seen without binding", took, notes.Load())
	}
	release()
	if got := fetch(t, addr); got != "program" {
		t.Errorf("got %q after release", got)
	}
}

// The program binds the port while it is waited for.
func TestPorts_PatienceLetsTheProgramBind(t *testing.T) {
	p, addr, notes := ports(t)
	asked := make(chan struct{})
	p.Patience = func(string) time.Duration { close(asked); return 30 * time.Second }
	opened := make(chan func())
	go func() { opened <- p.Open(t.Context(), HTTP01) }()
	<-asked
	ln := listen(t, addr)
	release := <-opened
	release()
	if notes.Load() != 0 {
		t.Errorf("%d notes", notes.Load())
	}
	if _, err := net.Listen("tcp", addr); err == nil {
		t.Error("the program's listener is gone")
	}
	_ = ln.Close()
}

func TestPorts_PatienceEnds(t *testing.T) {
	p, addr, _ := ports(t)
	p.Patience = func(string) time.Duration { return 120 * time.Millisecond }
	start := time.Now()
	release := p.Open(t.Context(), HTTP01)
	if took := time.Since(start); took < 120*time.Millisecond {
		t.Errorf("the program was given %v", took)
	}
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("got %q", got)
	}
	// Who comes later does not wait for a program that did not come.
	p.Patience = func(string) time.Duration { return time.Minute }
	start = time.Now()
	again := p.Open(t.Context(), HTTP01)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	release()
	if got := fetch(t, addr); got != "ours" {
		t.Errorf("the second user lost the port: %q", got)
	}
	again()
}

func TestPorts_ContextEndsPatience(t *testing.T) {
	p, addr, _ := ports(t)
	p.Patience = func(string) time.Duration { return time.Minute }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	release := p.Open(ctx, HTTP01)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	_ = listen(t, addr).Close() // nothing was opened
	release()
}

func TestPorts_NotWanted(t *testing.T) {
	for name, change := range map[string]func(*Ports){
		"no address":      func(p *Ports) { p.Addr = func(string) (string, bool) { return "", false } },
		"program serving": func(p *Ports) { p.Serving = func(string) bool { return true } },
	} {
		t.Run(name, func(t *testing.T) {
			p, addr, notes := ports(t)
			change(p)
			release := p.Open(t.Context(), HTTP01)
			_ = listen(t, addr).Close()
			release()
			if notes.Load() != 0 {
				t.Errorf("%d notes", notes.Load())
			}
		})
	}
}

// A port that cannot be bound is reported and stops nothing.
func TestPorts_CannotBind(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:80", "127.0.0.1:99999", "nonsense"} {
		p, _, notes := ports(t)
		p.Addr = func(string) (string, bool) { return addr, true }
		p.Patience = func(string) time.Duration { return time.Millisecond }
		p.Open(t.Context(), HTTP01)()
		if notes.Load() != 1 {
			t.Errorf("%s: %d notes", addr, notes.Load())
		}
	}
}

func TestPorts_TLSALPN(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	table := New(nil, "", func(string, string) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	})
	p, addr, _ := ports(t)
	p.TLS = &tls.Config{
		NextProtos: []string{"acme-tls/1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return table.Certificate(h.Context(), h.ServerName)
		},
	}
	release := p.Open(t.Context(), TLSALPN01)
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

func TestPorts_Parallel(t *testing.T) {
	p, addr, notes := ports(t)
	p.Patience = func(string) time.Duration { return 20 * time.Millisecond }
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 5 {
				release := p.Open(t.Context(), HTTP01)
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
}
