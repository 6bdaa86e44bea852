package acmetest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"strconv"
	"strings"
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

// listen makes s answer where its CA validates on an address; for dns-01 there is
// nothing to listen on.
func (s *solver) listen(t *testing.T, host string) {
	t.Helper()
	srv := &http.Server{Handler: s}
	var listener net.Listener
	var err error
	switch s.typ {
	case acme.ChallengeTypeHTTP01:
		listener, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(s.ca.HTTPPort())))
	case acme.ChallengeTypeTLSALPN01:
		listener, err = tls.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(s.ca.TLSPort())), &tls.Config{
			GetCertificate: s.certificate,
			NextProtos:     []string{"acme-tls/1"},
		})
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	default:
		return
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
}

// user is an ACME client with an account.
type user struct {
	solver  *solver
	client  *acmez.Client
	account acme.Account
}

// newUser makes an account that uses one type of challenge.
func newUser(t *testing.T, ca *acmetest.CA, typ string) *user {
	t.Helper()
	s := &solver{ca: ca, typ: typ, pages: make(map[string]string), certs: make(map[string]*tls.Certificate)}
	s.listen(t, "127.0.0.1")
	u := &user{
		solver: s,
		client: &acmez.Client{
			Client: &acme.Client{
				Directory:    ca.Directory(),
				HTTPClient:   ca.Client(),
				UserAgent:    "acmetest",
				PollInterval: 5 * time.Millisecond,
			},
			ChallengeSolvers: map[string]acmez.Solver{typ: s},
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

// postJWS sends one signed request (RFC 8555 section 6.2) with a fresh nonce and
// returns the problem in the answer, a zero one on success.
func postJWS(t *testing.T, ca *acmetest.CA, account acme.Account, url, payload string) acme.Problem {
	t.Helper()
	client := ca.Client()
	resp, err := client.Head(strings.Replace(ca.Directory(), "/dir", "/nonce-plz", 1))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	key := account.PrivateKey.(*ecdsa.PrivateKey)
	header := map[string]any{"alg": "ES256", "nonce": resp.Header.Get("Replay-Nonce"), "url": url}
	if account.Location != "" {
		header["kid"] = account.Location
	} else {
		public, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		header["jwk"] = map[string]string{"kty": "EC", "crv": "P-256", "x": encode(public[1:33]), "y": encode(public[33:])}
	}
	protected, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(encode(protected) + "." + encode([]byte(payload))))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	body, err := json.Marshal(map[string]string{
		"protected": encode(protected), "payload": encode([]byte(payload)), "signature": encode(signature),
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = client.Post(url, "application/jose+json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var problem acme.Problem
	if resp.StatusCode >= 400 {
		if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
			t.Fatal(err)
		}
	}
	return problem
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
