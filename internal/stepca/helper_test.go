package stepca_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// manager is a Config for the CA. The Manager answers the CA by itself.
func (c *ca) manager(t *testing.T, change ...func(*ACME)) Config {
	t.Helper()
	a := &ACME{Directory: c.directory(), RootCAs: c.roots}
	for _, f := range change {
		f(a)
	}
	return Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), Issuers: []Issuer{a},
		HTTPPort: c.httpPort, TLSPort: c.tlsPort, ListenHost: "127.0.0.1", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// start returns a Manager that is closed at the end of the test.
func start(t *testing.T, conf Config) *Manager {
	t.Helper()
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeManager(t, m) })
	return m
}

func closeManager(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}

// testContext ends long before the test binary's own time-out.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// manage has names managed and fails the test when one gets no certificate.
func manage(t *testing.T, m *Manager, names ...string) {
	t.Helper()
	if err := m.ManageSync(testContext(t), names); err != nil {
		t.Fatal(err)
	}
}

// check fails the test when a client that trusts the CA's root does not accept
// what is served for a name.
func check(t *testing.T, m *Manager, c *ca, names ...string) {
	t.Helper()
	for _, name := range names {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tls.Server(server, m.TLSConfig()).HandshakeContext(testContext(t)) }()
		err := tls.Client(client, &tls.Config{ServerName: name, RootCAs: c.roots}).HandshakeContext(testContext(t))
		if err != nil {
			t.Errorf("a client of %s: %v", name, err)
		}
		_ = client.Close()
		<-done
		_ = server.Close()
	}
}

// counts are requests that were accepted, by the name of their endpoint.
type counts map[string]int

// expect fails the test when other numbers of requests were accepted.
func (c *ca) expect(t *testing.T, want counts) {
	t.Helper()
	for endpoint, n := range want {
		if got := c.accepted(endpoint); got != n {
			t.Errorf("%d accepted requests to %s, want %d", got, endpoint, n)
		}
	}
}

// renew has a name renewed and fails the test when it is not.
func renew(t *testing.T, m *Manager, name string) {
	t.Helper()
	if err := m.Renew(testContext(t), name); err != nil {
		t.Fatal(err)
	}
}

// status returns the status of the certificate whose first name is name.
func status(t *testing.T, m *Manager, name string) NameStatus {
	t.Helper()
	for _, s := range m.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("%q is not managed", name)
	return NameStatus{}
}

// await returns the next event of a kind.
func await(t *testing.T, events <-chan Event, kind EventKind) Event {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case ev := <-events:
			if ev.Kind == kind {
				return ev
			}
		case <-ctx.Done():
			t.Fatalf("no event %q", kind)
		}
	}
}
