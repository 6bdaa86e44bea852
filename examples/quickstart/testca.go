package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

// names are what the test CA certifies: they lead to this host without any DNS.
var names = []string{"localhost", "quickstart.localhost", "127.0.0.1"}

// demo is a server with certificates from the test CA.
type demo struct {
	o       options
	ca      *acmetest.CA
	dir     string // for storage and the root
	storage *storage.Dir
}

// serveTest runs everything on loopback.
func serveTest(ctx context.Context, o options) (err error) {
	d := &demo{o: o, dir: o.storage}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "certwright-quickstart-"); err != nil {
			return err
		}
		defer os.RemoveAll(d.dir)
	}
	if d.ca, err = acmetest.New(acmetest.Options{}); err != nil {
		return err
	}
	defer d.ca.Close()
	if d.storage, err = storage.OpenDir(filepath.Join(d.dir, "storage")); err != nil {
		return err
	}
	defer d.storage.Close()
	if o.once {
		return d.once(ctx)
	}
	return d.serve(ctx)
}

// manager returns a Manager for the test CA.
func (d *demo) manager() (*certwright.Manager, error) {
	return certwright.New(certwright.Config{
		Email: "admin@example.com", AgreeToTerms: true, Storage: d.storage,
		Issuers:  []certwright.Issuer{&certwright.ACME{Directory: d.ca.Directory(), HTTPClient: d.ca.Client()}},
		HTTPPort: d.ca.HTTPPort(), TLSPort: d.ca.TLSPort(),
		Logger: quietLogger(), // a fresh folder is meant here
	})
}

// quietLogger writes errors only.
func quietLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// start serves with m's certificates, on the ports that the test CA validates,
// until stop is called.
func (d *demo) start(m *certwright.Manager) (stop func() error, err error) {
	secure, err := listenLoopback(d.ca.TLSPort())
	if err != nil {
		return nil, err
	}
	plain, err := listenLoopback(d.ca.HTTPPort())
	if err != nil {
		return nil, errors.Join(err, secure.Close())
	}
	quiet := log.New(io.Discard, "", 0) // a validator leaves after the handshake
	httpsServer := m.TLS(&http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet})
	httpServer := &http.Server{Handler: m.HTTPHandler(nil), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- httpsServer.ServeTLS(secure, "", "") }()
	go func() { ended <- httpServer.Serve(plain) }()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := errors.Join(httpsServer.Shutdown(ctx), httpServer.Shutdown(ctx))
		for range 2 {
			if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
				err = errors.Join(err, e)
			}
		}
		return err
	}, nil
}

// running calls f while the names are served by a new Manager.
func (d *demo) running(ctx context.Context, f func(m *certwright.Manager) error) error {
	m, err := d.manager()
	if err != nil {
		return err
	}
	defer closeManager(ctx, m)
	stop, err := d.start(m)
	if err != nil {
		return err
	}
	if err = m.ManageSync(ctx, names); err == nil {
		err = f(m)
	}
	return errors.Join(err, stop())
}

// serve runs until ctx ends.
func (d *demo) serve(ctx context.Context) error {
	return d.running(ctx, func(m *certwright.Manager) error {
		root := filepath.Join(d.dir, "root.pem")
		if err := os.WriteFile(root, d.ca.RootPEM(), 0o600); err != nil {
			return err
		}
		for _, s := range m.Status() {
			fmt.Fprintf(d.o.out, "%-22s issued by %s, serial %s, not_after %s\n", s.Name, s.Issuer, s.Serial, s.NotAfter.Format(time.RFC3339))
		}
		port := d.ca.TLSPort()
		fmt.Fprintf(d.o.out, "\nserving   https://localhost:%d/ and https://127.0.0.1:%d/\nCA root   %s\ntry       curl --cacert %s https://localhost:%d/\n\nCtrl-C ends it.\n",
			port, port, root, root, port)
		<-ctx.Done()
		return nil
	})
}

// once shows an issue, a live renewal and a restart on the same storage, which
// orders nothing.
func (d *demo) once(ctx context.Context) error {
	var first, second shown
	err := d.running(ctx, func(m *certwright.Manager) (err error) {
		if first, err = d.request(ctx); err != nil {
			return err
		}
		fmt.Fprintf(d.o.out, "issued    %s", first)
		if err := m.Renew(ctx, "localhost"); err != nil {
			return err
		}
		if second, err = d.request(ctx); err != nil {
			return err
		}
		if second.serial == first.serial {
			return errors.New("the renewed certificate is not served")
		}
		fmt.Fprintf(d.o.out, "renewed   new serial %s, while the server was serving\n", second.serial)
		return nil
	})
	if err != nil {
		return err
	}
	orders := d.ca.Orders()
	return d.running(ctx, func(*certwright.Manager) error {
		after, err := d.request(ctx)
		if err != nil {
			return err
		}
		if n := d.ca.Orders() - orders; n != 0 || after.serial != second.serial {
			return fmt.Errorf("the restart made %d orders and serves %s", n, after.serial)
		}
		fmt.Fprintf(d.o.out, "restarted no new order was made; serial %s is served from storage\n", after.serial)
		return nil
	})
}

// shown is the certificate that a request was answered with.
type shown struct{ name, issuer, serial, notAfter string }

func (s shown) String() string {
	return fmt.Sprintf("name %s, issuer %q, serial %s, not_after %s\n", s.name, s.issuer, s.serial, s.notAfter)
}

// request makes one request that trusts nothing but the test CA's root.
func (d *demo) request(ctx context.Context) (shown, error) {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: d.ca.Roots()},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", fmt.Sprint(d.ca.TLSPort())))
		},
	}, Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://localhost:%d/", d.ca.TLSPort()), nil)
	if err != nil {
		return shown{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return shown{}, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return shown{}, errors.Join(fmt.Errorf("the server answered %s", resp.Status), err)
	}
	leaf := resp.TLS.PeerCertificates[0]
	return shown{
		name: "localhost", issuer: leaf.Issuer.String(), serial: fmt.Sprintf("%x", leaf.SerialNumber), notAfter: leaf.NotAfter.UTC().Format(time.RFC3339),
	}, nil
}
