package fakeca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// CA is a certification authority in memory. Make one with [New]; it is safe for concurrent use and
// holds nothing that must be closed.
//
// Of its locks none is held while another is taken, while a hook runs or while a certificate is signed.
type CA struct {
	opt     Options
	host    string // of the base URL
	prefix  string // path of the base URL
	pki     *authority
	nonces  nonces
	journal journal
	routes  map[string]route

	rulesMu sync.Mutex // guards rules, down
	rules   []*rule
	down    *Problem // nil: up

	mu        sync.Mutex // guards what follows, and all that hangs from it
	lastID    int
	accounts  map[string]*account // by ID
	byKey     map[string]*account // by thumbprint
	orders    map[string]*order
	orderList []*order
	open      map[string]*order // unfinished orders by what they are for; only with OrderReuse
	authzs    map[string]*authz
	certs     map[string]*issued // by serial
	certList  []*issued
	usedEAB   map[string]bool
}

// New makes a CA with fresh keys; its own certificates are valid from 1990 to 2200. It panics when
// BaseURL is not a URL or the system has no randomness.
func New(opt Options) *CA {
	if opt.DefaultLifetime == 0 {
		opt.DefaultLifetime = 90 * 24 * time.Hour
	}
	if opt.ARIRetryAfter == 0 {
		opt.ARIRetryAfter = 6 * time.Hour
	}
	if opt.KeepRequests == 0 {
		opt.KeepRequests = 10_000
	}
	if opt.Challenges == nil {
		opt.Challenges = []string{"http-01", "tls-alpn-01"}
	}
	opt.BaseURL = strings.TrimSuffix(opt.BaseURL, "/")
	c := &CA{
		opt:     opt,
		pki:     newAuthority(opt.Alternates),
		nonces:  nonces{lifetime: opt.NonceLifetime},
		journal: journal{keep: max(opt.KeepRequests, 0)},
		certs:   make(map[string]*issued),
		usedEAB: make(map[string]bool),
	}
	u, err := url.Parse(c.baseURL())
	if err != nil {
		panic("fakeca: BaseURL: " + err.Error())
	}
	c.host, c.prefix = u.Host, u.Path
	c.routes = endpoints()
	c.forgetLocked()
	return c
}

func (c *CA) baseURL() string {
	if c.opt.BaseURL != "" {
		return c.opt.BaseURL
	}
	return defaultBaseURL
}

// Directory returns the directory URL, as it is through Transport. A CA without BaseURL that is
// served on another host has its directory at /directory there.
func (c *CA) Directory() string { return c.baseURL() + "/directory" }

// Roots returns a new pool of the root certificates, those of alternate chains included.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ch := range c.pki.chains {
		pool.AddCert(ch.root)
	}
	return pool
}

// RootPEM returns the same certificates as PEM.
func (c *CA) RootPEM() []byte {
	var out bytes.Buffer
	for _, ch := range c.pki.chains {
		out.Write(encodePEM(ch.root))
	}
	return out.Bytes()
}

// Intermediate returns the certificate and the key that sign the leaves, for signing OCSP
// responses and CRLs.
func (c *CA) Intermediate() (*x509.Certificate, crypto.Signer) {
	return c.pki.chains[0].intermediate, c.pki.key
}

// Transport returns a round tripper that calls the CA on the caller's goroutine. A host that is not
// the CA's cannot be reached through it.
func (c *CA) Transport() http.RoundTripper { return Network(c) }

// Client returns a new HTTP client over Transport, without a timeout.
func (c *CA) Client() *http.Client { return &http.Client{Transport: c.Transport()} }

func encodePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}
