package acmetest

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// The kinds of request that Kind tells apart and CA.Requests counts.
const (
	KindDirectory   = "directory"
	KindNewNonce    = "new-nonce"
	KindNewAccount  = "new-account"
	KindAccount     = "account"
	KindKeyChange   = "key-change"
	KindNewOrder    = "new-order"
	KindOrder       = "order"
	KindOrders      = "orders"
	KindAuthz       = "authz"
	KindChallenge   = "challenge"
	KindFinalize    = "finalize"
	KindCert        = "cert"
	KindRevokeCert  = "revoke-cert"
	KindRenewalInfo = "renewal-info"
	KindOther       = "other"
)

// Paths that Pebble does not export.
const (
	orderPath    = "/my-order/"
	finalizePath = "/finalize-order/"
)

// Kind returns which resource of the ACME API a request is for, one of the Kind
// constants: KindOther for a path the API does not have. It looks at the path
// only and is for use in Options.Middleware.
func Kind(r *http.Request) string {
	switch path := r.URL.Path; path {
	case "/dir":
		return KindDirectory
	case "/nonce-plz":
		return KindNewNonce
	case "/sign-me-up":
		return KindNewAccount
	case "/order-plz":
		return KindNewOrder
	case "/revoke-cert":
		return KindRevokeCert
	case "/rollover-account-key":
		return KindKeyChange
	default:
		return kindBelow(path)
	}
}

// kindBelow returns the kind of a path that carries an identifier.
func kindBelow(path string) string {
	prefixes := []struct{ prefix, kind string }{
		{orderPath, KindOrder},
		{finalizePath, KindFinalize},
		{"/authZ/", KindAuthz},
		{"/chalZ/", KindChallenge},
		{"/certZ/", KindCert},
		{"/my-account/", KindAccount},
		{"/list-orderz/", KindOrders},
		{"/draft-ietf-acme-ari-03/renewalInfo/", KindRenewalInfo},
	}
	for _, p := range prefixes {
		if strings.HasPrefix(path, p.prefix) {
			return p.kind
		}
	}
	return KindOther
}

// counts counts requests. Its zero value is ready, and it is safe for
// concurrent use.
type counts struct {
	mu     sync.Mutex // guards byKind, orders
	byKind map[string]int
	orders int
}

func (c *counts) request(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKind == nil {
		c.byKind = make(map[string]int)
	}
	c.byKind[kind]++
}

func (c *counts) order() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders++
}

func (c *counts) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKind, c.orders = nil, 0
}

// Requests returns how many requests of each kind reached the API since New or
// ResetCounts, those that Middleware answered too. A kind without any is not in
// the map. The map belongs to the caller.
func (c *CA) Requests() map[string]int {
	c.counts.mu.Lock()
	defer c.counts.mu.Unlock()
	if c.counts.byKind == nil {
		return map[string]int{}
	}
	return maps.Clone(c.counts.byKind)
}

// Orders returns how many orders the CA accepted since New or ResetCounts.
func (c *CA) Orders() int {
	c.counts.mu.Lock()
	defer c.counts.mu.Unlock()
	return c.counts.orders
}

// ResetCounts sets what Requests and Orders return to zero.
func (c *CA) ResetCounts() { c.counts.reset() }
