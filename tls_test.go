package certwright_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
)

// listenerClient returns a client that trusts leaf and connects to ln alone.
func listenerClient(t *testing.T, ln net.Listener, leaf *x509.Certificate) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: leaf.DNSNames[0], RootCAs: roots}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func TestListenServesTheCertificates(t *testing.T) {
	cert := selfSigned(t, "a.example.com")
	m := offline(t, newFakeSigner(t), static(cert))
	first, err := m.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := m.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for _, ln := range []net.Listener{first, second} {
		srv := &http.Server{
			ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }),
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		resp, err := listenerClient(t, ln, cert.Leaf).Get("https://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || string(body) != "HTTP/2.0" {
			t.Errorf("answer %q, %v", body, err)
		}
		if err := srv.Close(); err != nil { // the other listener goes on
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}

func TestListenErrorsNameTheAddress(t *testing.T) {
	m := offline(t, newFakeSigner(t))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct{ network, addr, says string }{
		{"tcp", taken.Addr().String(), "in use"},
		{"udp", "127.0.0.1:0", "tcp"},
		{"unix", "/run/x.sock", "tcp"},
		{"tcp", "127.0.0.1", "port"},
	} {
		ln, err := m.Listen(tt.network, tt.addr)
		if ln != nil || err == nil || !strings.Contains(err.Error(), `"`+tt.addr+`"`) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Listen(%q, %q) = %v, %v; want an error that says %q", tt.network, tt.addr, ln, err, tt.says)
		}
	}
	closeManager(t, m)
	if _, err := m.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, ErrClosed) {
		t.Errorf("Listen after Close = %v; want ErrClosed", err)
	}
}
