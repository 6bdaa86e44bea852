package certwright_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// testCA starts a CA in this process, in place of Let's Encrypt. Its
// configuration is what the examples add to that of a real server, which leaves
// out Issuers, the ports and the address.
func testCA() (*fakeca.CA, certwright.Config) {
	ca := fakeca.New(fakeca.Options{})
	return ca, certwright.Config{
		AgreeToTerms: true,
		Storage:      storage.NewMemory(),
		Issuers:      []certwright.Issuer{&certwright.ACME{Directory: ca.Directory(), HTTPClient: ca.Client()}},
		HTTPPort:     anyPort(),
		TLSPort:      anyPort(),
		ListenHost:   "127.0.0.1",
	}
}

// freePort returns a port of this host on which nobody listens.
func anyPort() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// visit makes a request to the server on a port of this host, as a client that
// looks up name would, and returns the answer.
func visit(ca *fakeca.CA, port int, name string) string {
	addr := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: ca.Roots()},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	resp, err := client.Get("https://" + name)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	return string(body)
}

// greet is the server's own handler.
func greet(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello over %s from %s", r.Proto, r.Host)
}

// A certificate is issued, kept in storage and renewed from then on; Status says
// what there is and what happens next.
func Example() {
	_, conf := testCA()
	ctx := context.Background()

	m, err := certwright.New(conf)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	if err := m.ManageSync(ctx, []string{"example.com", "www.example.com"}); err != nil {
		log.Fatal(err)
	}
	for _, s := range m.Status() {
		life, used := s.NotAfter.Sub(s.NotBefore), s.RenewAt.Sub(s.NotBefore)
		fmt.Println(s.Name, s.State, "renewed after half of its life:", used > life/2 && used < life)
	}
	// Output:
	// example.com valid renewed after half of its life: true
	// www.example.com valid renewed after half of its life: true
}

// Serve does everything: both ports, certificates, the redirect to https, and a
// graceful shutdown when its context ends.
func ExampleManager_Serve() {
	ca, conf := testCA()
	ctx, stop := context.WithCancel(context.Background())

	ready := make(chan struct{})
	conf.OnEvent = func(e certwright.Event) {
		if e.Kind == certwright.EventIssued {
			close(ready)
		}
	}
	m, err := certwright.New(conf)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(context.Background())
	served := make(chan error)
	go func() { served <- m.Serve(ctx, http.HandlerFunc(greet), "example.com") }()

	<-ready
	fmt.Println(visit(ca, conf.TLSPort, "example.com"))
	stop()
	fmt.Println(<-served)
	// Output:
	// hello over HTTP/2.0 from example.com
	// <nil>
}

// TLS adds what is needed to a server of your own; HTTPHandler belongs on the
// plain HTTP port.
func ExampleManager_TLS() {
	ca, conf := testCA()
	ctx := context.Background()

	m, err := certwright.New(conf)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	plain := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", conf.HTTPPort), Handler: m.HTTPHandler(nil)}
	defer plain.Close()
	go plain.ListenAndServe() // in earnest on ":80"
	srv := m.TLS(&http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", conf.TLSPort), Handler: http.HandlerFunc(greet)})
	defer srv.Close()
	go srv.ListenAndServeTLS("", "") // in earnest on ":443"

	if err := m.ManageSync(ctx, []string{"example.com"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(visit(ca, conf.TLSPort, "example.com"))
	// Output: hello over HTTP/2.0 from example.com
}

// GetCertificate drops into a tls.Config of your own. For tls-alpn-01 it needs
// "acme-tls/1" in NextProtos.
func ExampleManager_GetCertificate() {
	ca, conf := testCA()
	ctx := context.Background()

	m, err := certwright.New(conf)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	listener, err := tls.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", conf.TLSPort), &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: m.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(greet)}
	defer srv.Close()
	go srv.Serve(listener)

	if err := m.ManageSync(ctx, []string{"example.com", "127.0.0.1"}); err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"example.com", "127.0.0.1"} {
		fmt.Println(visit(ca, conf.TLSPort, name))
	}
	// Output:
	// hello over HTTP/2.0 from example.com
	// hello over HTTP/2.0 from 127.0.0.1
}
