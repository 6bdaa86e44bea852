package managertest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
)

// nginxConf is a proxy as its manual has it: a port, where it leads to, and more
// for its location.
const nginxConf = `daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen 127.0.0.1:%[2]d;
		location / {
			proxy_pass http://127.0.0.1:%[3]d;
			%[4]s
		}
	}
}
`

// nginx runs nginx on a port of loopback until the test ends.
func nginx(t *testing.T, port, to int, location string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no nginx")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, port, to, location), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-p", dir, "-e", "stderr", "-c", conf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	for { // until it listens
		conn, err := net.Dial("tcp", listenAddr("127.0.0.1", port))
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("nginx ended: %s", &out)
		default:
		}
	}
}

// forward forwards a port of loopback to another one, as a router does.
func forward(t *testing.T, port, to int) {
	t.Helper()
	ln := listenPort(t, port)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", listenAddr("127.0.0.1", to))
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
}

// anyPort returns a port of loopback that nobody listens on.
func anyPort(t *testing.T) int {
	t.Helper()
	ln := listenPort(t, 0)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// Behind nginx, which by itself puts the backend's address into Host, and with
// both ports mapped to others, either type of challenge is answered, before the
// program's own servers run and by them, and the redirect goes to the port that
// clients see (F65, F67).
func TestBehindNginxWithMappedPorts(t *testing.T) {
	const name = "proxied.example.com"
	const keepHost = "proxy_set_header Host $http_host;"
	for _, tt := range []struct {
		name     string
		location string
		change   func(*ACME)
		serves   bool // the program's own servers run
		redirect bool // nginx says which name was asked for
	}{
		{"Host of the backend", "", onlyHTTP01, true, false},
		{"Host kept", keepHost, onlyHTTP01, true, true},
		{"Host of the backend, before a server runs", "", onlyHTTP01, false, false},
		{"Host kept, before a server runs", keepHost, onlyHTTP01, false, false},
		{"Host without its port", "proxy_set_header Host $host;", onlyHTTP01, true, true},
		{"HTTP/1.1 to the backend", keepHost + " proxy_http_version 1.1;", onlyHTTP01, true, true},
		{"tls-alpn-01", "", onlyTLSALPN01, true, false},
		{"tls-alpn-01, before a server runs", "", onlyTLSALPN01, false, false},
		{"both types", keepHost, func(*ACME) {}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			conf := standalone(t, ca, tt.change)
			conf.HTTPPort, conf.TLSPort, conf.RedirectPort = anyPort(t), anyPort(t), ca.TLSPort()
			nginx(t, ca.HTTPPort(), conf.HTTPPort, tt.location)
			forward(t, ca.TLSPort(), conf.TLSPort)
			m := start(t, conf)
			if !tt.serves {
				manage(t, m, name)
				return
			}
			ctx, stop := context.WithCancel(testContext(t))
			served := make(chan error, 1)
			go func() { served <- m.Serve(ctx, http.HandlerFunc(hello), name) }()
			t.Cleanup(func() {
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
			awaitManaged(t, m, name, served)
			if err := m.Wait(ctx, name); err != nil {
				t.Fatal(err)
			}
			mustDial(t, ca.TLSPort(), name, ca.Roots())
			if ca.Orders() != 1 {
				t.Errorf("%d orders", ca.Orders())
			}
			if tt.redirect {
				checkRedirect(t, ca.HTTPPort(), name, "https://"+listenAddr(name, ca.TLSPort())+"/a?b")
			}
		})
	}
}

// awaitManaged waits until Serve has come to manage name.
func awaitManaged(t *testing.T, m *Manager, name string, served chan error) {
	t.Helper()
	for len(m.Status()) == 0 {
		select {
		case err := <-served:
			served <- nil
			t.Fatalf("Serve ended before %q was managed: %v", name, err)
		default:
		}
	}
}

// checkRedirect asks for a page on the plain port as a client that looked up name
// does.
func checkRedirect(t *testing.T, port int, name, want string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "http://"+listenAddr("127.0.0.1", port)+"/a?b", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = listenAddr(name, port)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusMovedPermanently || got != want {
		t.Errorf("%d to %q; want %q", resp.StatusCode, got, want)
	}
}
