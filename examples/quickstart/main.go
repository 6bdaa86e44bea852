// Quickstart shows automatic HTTPS at work. With no argument it starts a test
// CA in this process, gets a certificate from it for localhost names and for
// 127.0.0.1, serves https on loopback and says how to look at it; it runs until
// interrupted.
//
//	go run -C examples ./quickstart
//	go run -C examples ./quickstart -once
//	go run -C examples ./quickstart -ca URL -email ADDR NAME...
//
// With -ca it uses a real CA, to whose terms of service you agree by it: then
// the names must lead to this host, and ports 80 and 443 must be free.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// errUsage ends the program with the status of a wrong command line.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	once        bool
	ca, email   string
	storage     string
	names       []string
	out, errOut io.Writer
	httpPort    int // of the real CA's mode
	tlsPort     int
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	o := options{out: out, errOut: errOut}
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.BoolVar(&o.once, "once", false, "issue, renew, restart, show each, and exit")
	fs.StringVar(&o.ca, "ca", "", "directory `URL` of a real ACME CA, to whose terms of service you agree by it")
	fs.StringVar(&o.email, "email", "", "`address` for the account at the real CA")
	fs.StringVar(&o.storage, "storage", "", "`folder` for certificates (default: a temporary one, or ./certwright-data with -ca)")
	fs.IntVar(&o.httpPort, "http-port", 80, "`port` on which the real CA's http-01 requests arrive")
	fs.IntVar(&o.tlsPort, "tls-port", 443, "`port` for https with the real CA")
	fs.Usage = func() {
		fmt.Fprintln(errOut, "usage: quickstart [-once] [-storage FOLDER]\n       quickstart -ca URL -email ADDR NAME...")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage
	}
	o.names = fs.Args()
	switch {
	case o.ca == "" && len(o.names) > 0:
		fmt.Fprintln(errOut, "quickstart: names are for -ca; the test CA issues for localhost names only")
		return errUsage
	case o.ca != "" && len(o.names) == 0:
		fmt.Fprintln(errOut, "quickstart: -ca needs the names to get certificates for")
		return errUsage
	case o.ca != "" && o.once:
		fmt.Fprintln(errOut, "quickstart: -once works with the test CA only: it renews at once, which would waste a real CA's limits")
		return errUsage
	case o.ca != "":
		return serveReal(ctx, o)
	}
	return serveTest(ctx, o)
}

// serveReal serves names with certificates from a real CA.
func serveReal(ctx context.Context, o options) error {
	if o.storage == "" {
		o.storage = "certwright-data"
	}
	storage, err := storage.OpenDir(o.storage)
	if err != nil {
		return err
	}
	defer storage.Close()
	m, err := certwright.New(certwright.Config{
		Directory: o.ca, Email: o.email, AgreeToTerms: true, Storage: storage,
		HTTPPort: o.httpPort, TLSPort: o.tlsPort,
		OnEvent: func(e certwright.Event) { fmt.Fprintln(o.out, describe(e)) },
	})
	if err != nil {
		return err
	}
	defer closeManager(ctx, m)
	path, err := filepath.Abs(o.storage)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "serving https for %v; certificates are kept in %s\n", o.names, path)
	return m.Serve(ctx, http.HandlerFunc(hello), o.names...)
}

func describe(e certwright.Event) string {
	s := fmt.Sprintf("%s %s %s", e.Time.Format(time.TimeOnly), e.Kind, e.Name)
	if e.Err != nil {
		s += fmt.Sprintf(": %v", e.Err)
	}
	return s
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello over %s from https://%s.\n", r.Proto, r.Host)
}

func closeManager(ctx context.Context, m *certwright.Manager) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
	}
}

func listenLoopback(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
}
