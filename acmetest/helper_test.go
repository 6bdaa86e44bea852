package acmetest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/acmetest"
)

// solver answers challenges of all kinds for one CA.
type solver struct {
	ca  *acmetest.CA
	typ string

	mu    sync.Mutex // guards pages, certs
	pages map[string]string
	certs map[string]*tls.Certificate // by the identifier's SNI
}

func (s *solver) Present(_ context.Context, chal acme.Challenge) error {
	if s.typ == acme.ChallengeTypeDNS01 {
		s.ca.AddTXT(chal.DNS01TXTRecordName(), chal.DNS01KeyAuthorization())
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.typ == acme.ChallengeTypeHTTP01 {
		s.pages[chal.HTTP01ResourcePath()] = chal.KeyAuthorization
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(chal)
	s.certs[chal.Identifier.Value] = cert
	return err
}

func (s *solver) CleanUp(_ context.Context, chal acme.Challenge) error {
	if s.typ == acme.ChallengeTypeDNS01 {
		s.ca.DeleteTXT(chal.DNS01TXTRecordName(), chal.DNS01KeyAuthorization())
	}
	return nil
}

func (s *solver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	page, ok := s.pages[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(page))
}

func (s *solver) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := hello.ServerName
	if name == "1.0.0.127.in-addr.arpa" { // RFC 8738 section 6
		name = "127.0.0.1"
	}
	return s.certs[name], nil
}

// newSolver returns a solver of one type; for http-01 and tls-alpn-01 it listens
// on an address where the CA validates.
func newSolver(t *testing.T, ca *acmetest.CA, typ, host string) *solver {
	t.Helper()
	s := &solver{ca: ca, typ: typ, pages: make(map[string]string), certs: make(map[string]*tls.Certificate)}
	srv := &http.Server{Handler: s}
	var listener net.Listener
	var err error
	switch typ {
	case acme.ChallengeTypeHTTP01:
		listener, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(ca.HTTPPort())))
	case acme.ChallengeTypeTLSALPN01:
		listener, err = tls.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(ca.TLSPort())), &tls.Config{
			GetCertificate: s.certificate,
			NextProtos:     []string{"acme-tls/1"},
		})
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	default:
		return s
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return s
}

// user is an ACME client with an account.
type user struct {
	client  *acmez.Client
	account acme.Account
}

// newUser makes an account that uses one type of challenge.
func newUser(t *testing.T, ca *acmetest.CA, typ string) *user {
	t.Helper()
	u := &user{
		client: &acmez.Client{
			Client: &acme.Client{
				Directory:    ca.Directory(),
				HTTPClient:   ca.Client(),
				UserAgent:    "acmetest",
				PollInterval: 5 * time.Millisecond,
			},
			ChallengeSolvers: map[string]acmez.Solver{typ: newSolver(t, ca, typ, "127.0.0.1")},
		},
		account: acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)},
	}
	account, err := u.client.NewAccount(t.Context(), u.account)
	if err != nil {
		t.Fatal(err)
	}
	u.account = account
	return u
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// order issues a certificate for names; change may alter the order before.
func (u *user) order(t *testing.T, change func(*acmez.OrderParameters), names ...string) ([]acme.Certificate, error) {
	t.Helper()
	csr, err := acmez.NewCSR(newKey(t), names)
	if err != nil {
		t.Fatal(err)
	}
	params, err := acmez.OrderParametersFromCSR(u.account, csr)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&params)
	}
	return u.client.ObtainCertificate(t.Context(), params)
}

// issue issues a certificate for names and returns its chain in PEM.
func (u *user) issue(t *testing.T, names ...string) []byte {
	t.Helper()
	certs, err := u.order(t, nil, names...)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0].ChainPEM
}

// parseChain returns the certificates in a PEM chain.
func parseChain(t *testing.T, chain []byte) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

// verify checks that a chain leads from a leaf for name to roots.
func verify(t *testing.T, chain []byte, roots *x509.CertPool, name string) *x509.Certificate {
	t.Helper()
	certs := parseChain(t, chain)
	middle := x509.NewCertPool()
	for _, cert := range certs[1:] {
		middle.AddCert(cert)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: middle}); err != nil {
		t.Errorf("verifying the chain for %q: %v", name, err)
	}
	return certs[0]
}
