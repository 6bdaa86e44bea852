// Package foreign runs the ACME clients whose stores certwright adopts, so that
// what it reads is what they write.
package foreign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// CA is where the clients get their certificates.
type CA struct {
	Directory         string
	Client            *http.Client
	Roots             *x509.CertPool                        // of the CA's own TLS certificate
	Proxy             func(*http.Request) (*url.URL, error) // for clients that take no http.Client; may be nil
	HTTPPort, TLSPort int                                   // where challenges are answered
}

// Fake starts a scripted CA that passes for the one at host. It is reached by
// way of a proxy, so that clients use its real directory URL.
func Fake(host string, opt fakeca.Options) (ca CA, stop func(), err error) {
	opt.BaseURL = "https://" + host
	fake := fakeca.New(opt)
	cert, roots, err := apiCert(host)
	if err != nil {
		return CA{}, nil, err
	}
	api := httptest.NewUnstartedServer(fake)
	api.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	api.StartTLS()
	proxy := httptest.NewServer(connectTo(api.Listener.Addr().String()))
	via, err := url.Parse(proxy.URL)
	if err != nil {
		return CA{}, nil, err
	}
	ca = CA{
		Directory: fake.Directory(), Client: fake.Client(), Roots: roots,
		Proxy: http.ProxyURL(via), HTTPPort: freePort(), TLSPort: freePort(),
	}
	return ca, func() { proxy.Close(); api.Close() }, nil
}

// apiCert makes the certificate of the CA's own server.
func apiCert(host string) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots, nil
}

// connectTo is a proxy that leads every tunnel to addr.
func connectTo(addr string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "tunnels only", http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		done := make(chan struct{}, 2)
		pipe := func(to, from net.Conn) { _, _ = io.Copy(to, from); done <- struct{}{} }
		go pipe(up, down)
		go pipe(down, up)
		<-done
	})
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(fmt.Sprintf("no free port: %v", err))
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
