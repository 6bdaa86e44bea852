package certwright

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/acmetest"
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

func tlsClient(t *testing.T, name string, ca *acmetest.CA) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: name, RootCAs: ca.Roots()}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func TestServe(t *testing.T) {
	const good, bad = "good.example.com", "bad.example.com"
	ca := acmetest.StartWith(t, acmetest.Options{Blocklist: []string{bad}})
	m := start(t, standalone(t, ca))
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
		hello(w, r)
	}), good, bad)
	select {
	case <-issued:
	case <-testContext(t).Done():
		t.Fatal("no certificate was issued")
	}
	client := tlsClient(t, good, ca)
	url := "https://" + listenAddr("127.0.0.1", ca.TLSPort())
	if got := fetch(t, client, url); got != "HTTP/2.0 "+good {
		t.Errorf("answer %q", got)
	}
	resp, err := client.Get("http://" + listenAddr("127.0.0.1", ca.HTTPPort()) + "/a?b")
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
	waitClosed(t, ca.HTTPPort())
	close(leave)
	if got := <-slow; got != "HTTP/2.0 "+good {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v, want nil after its context ended", err)
	}
	if conn, err := net.Dial("tcp", listenAddr("127.0.0.1", ca.TLSPort())); err == nil {
		conn.Close()
		t.Error("Serve left a listener")
	}
	// The Manager lives on and answers by itself again.
	if err := m.Renew(testContext(t), good); err != nil {
		t.Error(err)
	}
}

// waitClosed waits until nobody listens on a port of loopback.
func waitClosed(t *testing.T, port int) {
	t.Helper()
	for ctx := testContext(t); ctx.Err() == nil; <-time.After(5 * time.Millisecond) {
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
func TestServe_Refused(t *testing.T) {
	taken := listenPort(t, 0)
	defer taken.Close()
	takenPort := taken.Addr().(*net.TCPAddr).Port
	probe := listenPort(t, 0)
	freePort := probe.Addr().(*net.TCPAddr).Port
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	other := listenPort(t, 0)
	otherPort := other.Addr().(*net.TCPAddr).Port
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name              string
		httpPort, tlsPort int
		names             []string
		field             string
	}{
		{"TLS port taken", freePort, takenPort, nil, "Config.TLSPort"},
		{"HTTP port taken", takenPort, freePort, nil, "Config.HTTPPort"},
		{"no TLS port", freePort, -1, nil, "Config.TLSPort"},
		{"no HTTP port", -1, freePort, nil, "Config.HTTPPort"},
		{"bad name", otherPort, freePort, []string{"good.example.com", "https://bad.example.com"}, "Spec.Names[0]"},
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
			ln := listenPort(t, freePort) // given back
			if err := ln.Close(); err != nil {
				t.Error(err)
			}
			if len(m.Status()) != 0 || f.count() != 0 {
				t.Error("names are managed although Serve failed")
			}
		})
	}
}

// Renew is waited for by somebody, so that no server is about to start: the
// Manager takes the port at once.
func TestPorts_PatienceDuringRenew(t *testing.T) {
	f := newFakeSigner(t)
	m := offline(t, f)
	if err := m.ManageSync(t.Context(), []string{"example.com"}); err != nil {
		t.Fatal(err)
	}
	var during time.Duration
	f.set(func() {
		f.hook = func(context.Context) error {
			during = m.ports.Patience("http-01")
			return nil
		}
	})
	if err := m.Renew(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	if during != 0 {
		t.Errorf("patience of %v in a renewal that is waited for", during)
	}
	if got := m.ports.Patience("http-01"); got == 0 {
		t.Error("no patience when nobody waits")
	}
	m.HTTPHandler(nil)
	f.set(func() { during = 0 })
	if err := m.Renew(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	if during == 0 {
		t.Error("no patience although a handler was asked for")
	}
}
