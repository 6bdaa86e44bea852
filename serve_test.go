package certwright_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
)

// startServe runs Serve until stop is called, which returns what Serve returned.
func startServe(t *testing.T, m *Manager, handler http.Handler, names ...string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx, handler, names...) }()
	var result error
	ended := false
	stop = func() error {
		cancel()
		if !ended {
			result, ended = <-done, true
		}
		return result
	}
	t.Cleanup(func() { _ = stop() }) // its error is the test's to look at
	return stop
}

func tlsClient(t *testing.T, name string, roots *x509.CertPool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: name, RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// freePort returns a port of loopback that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	ln := listenPort(t, 0)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestServe(t *testing.T) {
	const good, bad = "good.example.com", "bad.example.com"
	iss := &aroundIssuer{fakeSigner: newFakeSigner(t)}
	iss.issue = func(_ context.Context, req IssueRequest, next func() (Issued, error)) (Issued, error) {
		if req.Names[0] == bad {
			return Issued{}, errors.New("not that one")
		}
		return next()
	}
	httpPort, tlsPort := freePort(t), freePort(t)
	m := offline(t, iss.fakeSigner, func(c *Config) {
		c.Issuers, c.ListenHost, c.HTTPPort, c.TLSPort = []Issuer{iss}, "127.0.0.1", httpPort, tlsPort
		c.RedirectPort = tlsPort
	})
	entered, leave := make(chan struct{}), make(chan struct{})
	issued := make(chan struct{})
	events := m.Subscribe(t.Context())
	go func() {
		for e := range events {
			if e.Kind == EventIssued && e.Name == good {
				close(issued)
			}
		}
	}()
	stop := startServe(t, m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-leave
		}
		_, _ = io.WriteString(w, r.Proto+" "+r.TLS.ServerName)
	}), good, bad)
	select {
	case <-issued:
	case <-time.After(time.Minute):
		t.Fatal("no certificate was issued")
	}
	client := tlsClient(t, good, iss.roots())
	url := "https://" + listenAddr("127.0.0.1", tlsPort)
	if got := fetch(t, client, url); got != "HTTP/2.0 "+good {
		t.Errorf("answer %q", got)
	}
	resp, err := client.Get("http://" + listenAddr("127.0.0.1", httpPort) + "/a?b")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := url + "/a?b"; resp.StatusCode != http.StatusMovedPermanently || resp.Header.Get("Location") != want {
		t.Errorf("port 80: %d to %q, want %q", resp.StatusCode, resp.Header.Get("Location"), want)
	}
	// A name that fails keeps nothing from being served and stays managed.
	for _, s := range m.Status() {
		if s.Name == bad && s.State != StateMissing && s.State != StatePending {
			t.Errorf("the blocked name is %q", s.State)
		}
	}
	// A request in flight is answered although the context ends.
	slow := make(chan string)
	go func() { slow <- fetch(t, client, url+"/slow") }()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- stop() }()
	waitClosed(t, httpPort)
	close(leave)
	if got := <-slow; got != "HTTP/2.0 "+good {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v, want nil after its context ended", err)
	}
	if conn, err := net.Dial("tcp", listenAddr("127.0.0.1", tlsPort)); err == nil {
		conn.Close()
		t.Error("Serve left a listener")
	}
	// The Manager lives on.
	if err := m.Renew(t.Context(), good); err != nil {
		t.Error(err)
	}
}

// waitClosed waits until nobody listens on a port of loopback.
func waitClosed(t *testing.T, port int) {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", listenAddr("127.0.0.1", port))
		if err != nil {
			return
		}
		conn.Close()
	}
	t.Fatalf("somebody still listens on port %d", port)
}

func fetch(t *testing.T, client *http.Client, url string) string {
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// A port that is taken, or names that cannot be, are an error at once, and the
// other port is given back.
func TestServeRefuses(t *testing.T) {
	taken := listenPort(t, 0)
	defer taken.Close()
	takenPort := taken.Addr().(*net.TCPAddr).Port
	port, otherPort := freePort(t), freePort(t)
	for _, tc := range []struct {
		name              string
		httpPort, tlsPort int
		names             []string
		field             string
	}{
		{"TLS port taken", port, takenPort, nil, "Config.TLSPort"},
		{"HTTP port taken", takenPort, port, nil, "Config.HTTPPort"},
		{"no TLS port", port, -1, nil, "Config.TLSPort"},
		{"no HTTP port", -1, port, nil, "Config.HTTPPort"},
		{"bad name", otherPort, port, []string{"good.example.com", "https://bad.example.com"}, "names[1]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeSigner(t)
			m := offline(t, f, func(c *Config) {
				c.HTTPPort, c.TLSPort, c.ListenHost = tc.httpPort, tc.tlsPort, "127.0.0.1"
			})
			err := m.Serve(t.Context(), nil, tc.names...)
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != tc.field || !strings.Contains(err.Error(), tc.field) {
				t.Errorf("error %v, want a *ConfigError for %s", err, tc.field)
			}
			ln := listenPort(t, port) // given back
			if err := ln.Close(); err != nil {
				t.Error(err)
			}
			if len(m.Status()) != 0 || f.count() != 0 {
				t.Error("names are managed although Serve failed")
			}
		})
	}
}
