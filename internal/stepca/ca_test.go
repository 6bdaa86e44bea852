// Package stepca_test tests a Manager, through its public API only, against a real
// private CA: step-ca with its ACME server. It is a module of its own so that who
// uses certwright does not depend on step-ca.
package stepca_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/acme/api"
	acmedb "github.com/smallstep/certificates/acme/db/nosql"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

// options say what kind of CA it is.
type options struct {
	leaf         time.Duration // life of a leaf; 0: an hour
	intermediate time.Duration // life of the intermediate; 0: ten years
	requireEAB   bool
}

// provisionerID is what the CA's database calls its ACME server.
const provisionerID = "1"

// ca is a step-ca on loopback. Every name is this host for its validator.
type ca struct {
	opt               options
	httpPort, tlsPort int // where it connects to instead of 80 and 443
	root              *authorityCert
	roots             *x509.CertPool
	apiCert           tls.Certificate
	addr, dir         string // of its server and its database
	stop              func()
	acme              acme.DB // of the running one

	mu    sync.Mutex        // guards the fields below
	count map[string]int    // requests that were accepted, by the name of their endpoint
	lose  string            // the endpoint whose next reply is lost; empty: none
	txt   map[string]string // DNS
}

// newCA starts a CA that stops at the end of the test.
func newCA(t *testing.T, opt options) *ca {
	t.Helper()
	c := &ca{opt: opt, httpPort: freePort(t), tlsPort: freePort(t), dir: t.TempDir(), count: map[string]int{}, txt: map[string]string{}}
	c.root = newAuthorityCert(t, nil, 20*365*24*time.Hour)
	c.roots = x509.NewCertPool()
	c.roots.AddCert(c.root.cert)
	c.apiCert = c.root.serverCert(t)
	c.start(t)
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *ca) directory() string { return "https://" + c.addr + "/acme/office/directory" }

// start starts the CA with what its database has. It has a new intermediate, as
// after a rotation.
func (c *ca) start(t *testing.T) {
	t.Helper()
	intermediate := newAuthorityCert(t, c.root, cmp.Or(c.opt.intermediate, 10*365*24*time.Hour))
	store, err := db.New(&db.Config{Type: "bbolt", DataSource: filepath.Join(c.dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authority.NewEmbedded(
		authority.WithConfig(c.config()), authority.WithDatabase(store), authority.WithQuietInit(),
		authority.WithX509RootCerts(c.root.cert), authority.WithX509Signer(intermediate.cert, intermediate.key))
	if err != nil {
		t.Fatal(err)
	}
	if c.acme, err = acmedb.New(store.(nosql.DB)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", cmp.Or(c.addr, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	ctx := db.NewContext(authority.NewContext(context.Background(), auth), store)
	ctx = acme.NewContext(ctx, c.acme, validator{acme.NewClient(), c}, acme.NewLinker(c.addr, "acme"), nil)
	mux := chi.NewRouter()
	mux.Route("/acme", func(r chi.Router) { api.Route(r) })
	srv := &http.Server{
		Handler: c.counting(mux), BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.apiCert}}, ErrorLog: log.New(t.Output(), "step-ca: ", 0),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	c.stop = sync.OnceFunc(func() {
		_ = srv.Close() // its connections are cut off
		<-served
		if err := auth.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}

// restart stops the CA and starts it again at the same address.
func (c *ca) restart(t *testing.T) {
	t.Helper()
	c.stop()
	c.start(t)
}

func (c *ca) config() *config.Config {
	leaf := &provisioner.Duration{Duration: cmp.Or(c.opt.leaf, time.Hour)}
	return &config.Config{
		Address: "127.0.0.1:0", DNSNames: []string{"127.0.0.1"},
		AuthorityConfig: &config.AuthConfig{
			Backdate: &provisioner.Duration{Duration: time.Second},
			Provisioners: provisioner.List{&provisioner.ACME{
				ID: provisionerID, Type: "ACME", Name: "office", RequireEAB: c.opt.requireEAB,
				Claims: &provisioner.Claims{MinTLSDur: &provisioner.Duration{Duration: time.Second}, MaxTLSDur: leaf, DefaultTLSDur: leaf},
			}},
		},
	}
}

// counting counts what is accepted: of /acme/office/new-order it is "new-order", of
// /acme/office/order/…/finalize "finalize".
func (c *ca) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := httptest.NewRecorder()
		next.ServeHTTP(reply, r)
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/acme/office/"), "/")
		endpoint := parts[0]
		if parts[len(parts)-1] == "finalize" {
			endpoint = "finalize"
		}
		if c.note(endpoint, reply.Code) {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), reply.Header())
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes()) // the client may have left
	})
}

// note counts a request and reports whether its reply is to be lost.
func (c *ca) note(endpoint string, status int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if status >= 300 {
		return false
	}
	c.count[endpoint]++
	isLost := c.lose == endpoint
	if isLost {
		c.lose = ""
	}
	return isLost
}

// accepted returns how many requests to an endpoint were accepted.
func (c *ca) accepted(endpoint string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[endpoint]
}

// validator is step-ca's own client, but that every name and port is one of
// loopback's.
type validator struct {
	acme.Client
	ca *ca
}

func (v validator) Get(url string) (*http.Response, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, loopback(v.ca.httpPort))
	}}
	return (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(url)
}

func (v validator) TLSDial(network, _ string, conf *tls.Config) (*tls.Conn, error) {
	return v.Client.TLSDial(network, loopback(v.ca.tlsPort), conf)
}

func (v validator) LookupTxt(name string) ([]string, error) {
	v.ca.mu.Lock()
	defer v.ca.mu.Unlock()
	value, ok := v.ca.txt[strings.TrimSuffix(name, ".")]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return []string{value}, nil
}

// setTXT sets a record of the CA's DNS; empty: it goes.
func (c *ca) setTXT(name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.txt[name] = value; value == "" {
		delete(c.txt, name)
	}
}

// authorityCert is a certificate that signs others, with its key.
type authorityCert struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthorityCert makes one that parent signs; nil: a root.
func newAuthorityCert(t *testing.T, parent *authorityCert, life time.Duration) *authorityCert {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "office root"}, NotAfter: time.Now().Add(life), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent != nil {
		template.Subject.CommonName = "office intermediate"
	}
	return sign(t, parent, template)
}

// serverCert makes the certificate of the CA's own server.
func (a *authorityCert) serverCert(t *testing.T) tls.Certificate {
	t.Helper()
	s := sign(t, a, &x509.Certificate{
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	return tls.Certificate{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key}
}

func sign(t *testing.T, parent *authorityCert, template *x509.Certificate) *authorityCert {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	template.NotBefore = time.Now().Add(-time.Minute)
	if parent == nil {
		parent = &authorityCert{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authorityCert{cert: cert, key: key}
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
