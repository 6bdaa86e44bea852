package certwright_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// Requests that do not end in time are cut off when Serve ends: no connection and
// no handler that looks at its context is left behind (F68). It takes the ten
// seconds that requests in flight are given.
func TestServeLeavesNoRequestBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	f := newFakeSigner(t)
	httpPort, tlsPort := freePort(t), freePort(t)
	m := offline(t, f, func(c *Config) { c.ListenHost, c.HTTPPort, c.TLSPort = "127.0.0.1", httpPort, tlsPort })
	manage(t, m, "a.example.com")
	entered, left := make(chan struct{}), make(chan struct{})
	stop := startServe(t, m, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}), "a.example.com")
	conn := dialServe(t, tlsPort, &tls.Config{ServerName: "a.example.com", RootCAs: f.roots(), NextProtos: []string{"http/1.1"}})
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := stop(); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Serve = %v; want it to tell that requests were cut off", err)
	}
	<-left
	if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

// dialServe connects to a server of Serve, which may be about to listen.
func dialServe(t *testing.T, port int, conf *tls.Config) *tls.Conn {
	t.Helper()
	for {
		conn, err := tls.Dial("tcp", listenAddr("127.0.0.1", port), conf)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Who waits for a name that is not managed any more is told (F68).
func TestWaitEndsWithUnmanage(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context, m *Manager) error{
		"Wait":       func(ctx context.Context, m *Manager) error { return m.Wait(ctx, "a.example.com") },
		"ManageSync": func(ctx context.Context, m *Manager) error { return m.ManageSync(ctx, []string{"a.example.com"}) },
		"Renew":      func(ctx context.Context, m *Manager) error { return m.Renew(ctx, "a.example.com") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				ca.On(fakeca.Rule{Endpoint: "newOrder", Hang: true})
				m := start(t, conf)
				if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				told := make(chan error, 1)
				go func() { told <- wait(t.Context(), m) }()
				synctest.Wait()
				began := time.Now()
				if err := m.Unmanage("a.example.com"); err != nil {
					t.Fatal(err)
				}
				if err := <-told; !errors.Is(err, ErrNotManaged) || time.Since(began) > time.Second {
					t.Errorf("%v after %v; want ErrNotManaged at once", err, time.Since(began))
				}
			})
		})
	}
}

// A client without a server name gets what is in memory, and does not wait for
// what is in a storage that hangs (F68).
func TestClientWithoutServerNameDoesNotWaitForStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaulty(storage.NewMemory())
		m := offline(t, newFakeSigner(t), func(c *Config) { c.Storage, c.DefaultName = s, "a.example.com" })
		manage(t, m, "a.example.com")
		s.set(func(call) fault { return fault{delay: time.Hour} })
		if err := m.ManageAsync([]string{"203.0.113.1", "b.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		began := time.Now()
		checkHello(t, m, helloFor("", "203.0.113.1"), "a.example.com")
		checkHello(t, m, helloFor("", "10.0.0.1"), "a.example.com")
		checkHello(t, m, helloFor("198.51.100.1", "10.0.0.1"), "a.example.com")
		if took := time.Since(began); took > 0 {
			t.Errorf("handshakes waited for %v", took)
		}
		s.set(nil)
	})
}
