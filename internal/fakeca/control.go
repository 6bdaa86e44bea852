package fakeca

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"time"
)

// ForgetNonces makes each nonce handed out so far a bad one.
func (c *CA) ForgetNonces() { c.nonces.forget() }

// ForgetAccounts loses all accounts with their orders and authorizations, as a CA does whose
// database was reset. Certificates stay known, and key identifiers for account binding stay used.
func (c *CA) ForgetAccounts() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked()
}

func (c *CA) forgetLocked() {
	c.accounts = make(map[string]*account)
	c.byKey = make(map[string]*account)
	c.orders = make(map[string]*order)
	c.orderList = nil
	c.open = make(map[string]*order)
	c.authzs = make(map[string]*authz)
}

// nextIDLocked never gives the same ID twice, whatever is forgotten.
func (c *CA) nextIDLocked() string {
	c.lastID++
	return strconv.Itoa(c.lastID)
}

// Down makes every endpoint answer with p, before any rule and without a nonce, until Up. nil stands
// for what a proxy says on the behalf of a dead server: 503 with a page of HTML.
func (c *CA) Down(p *Problem) {
	if p == nil {
		p = &Problem{}
	}
	c.rulesMu.Lock()
	defer c.rulesMu.Unlock()
	c.down = p
}

// Up ends what Down began; it does nothing to a CA that is up.
func (c *CA) Up() {
	c.rulesMu.Lock()
	defer c.rulesMu.Unlock()
	c.down = nil
}

// downReply is nil while the CA is up.
func (c *CA) downReply() *reply {
	c.rulesMu.Lock()
	p := c.down
	c.rulesMu.Unlock()
	switch {
	case p == nil:
		return nil
	case p.Status == 0 && p.Type == "" && p.Detail == "":
		return newReply(http.StatusServiceUnavailable, "text/html", []byte("<html><h1>503 Service Unavailable</h1></html>"))
	}
	return p.reply(http.StatusServiceUnavailable)
}

// SetOrderStatus makes the order with that ID show a status whatever happens to it; "" ends
// that. An unknown ID is an error.
func (c *CA) SetOrderStatus(id, status string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.orders[id]
	if o == nil {
		return fmt.Errorf("setting status of order %q: no such order", id)
	}
	o.pinned = status
	return nil
}

// Revoke revokes a certificate: its renewal window moves to an hour ago, and revokeCert finds it
// already revoked. An unknown serial number is an error; a second Revoke changes nothing.
func (c *CA) Revoke(serial *big.Int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.certs[serial.Text(16)]
	if found == nil {
		return fmt.Errorf("revoking certificate %x: no such certificate", serial)
	}
	if found.revoked.IsZero() {
		found.revoked = time.Now()
	}
	return nil
}

// Revoked reports whether a certificate has been revoked, by whomever; false for an unknown one.
func (c *CA) Revoked(serial *big.Int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.certs[serial.Text(16)]
	return found != nil && !found.revoked.IsZero()
}

// OrderInfo describes an order at the time of the call.
type OrderInfo struct {
	// ID is the last part of the order's URL.
	ID string
	// AccountID is the last part of the account's URL.
	AccountID string
	// Identifiers are in the order asked for, wildcards with "*.".
	Identifiers []Identifier
	// Profile and Replaces are empty when the order has none.
	Profile, Replaces string
	// Status is the one a poll would see.
	Status string
	// Created is when newOrder was called.
	Created time.Time
	// Finalized is how many finalize requests were let through.
	Finalized int
	// Serial is that of the certificate; nil while there is none.
	Serial *big.Int
}

// Orders returns the orders that the CA knows, oldest first.
func (c *CA) Orders() []OrderInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]OrderInfo, 0, len(c.orderList))
	for _, o := range c.orderList {
		info := OrderInfo{
			ID:          o.id,
			AccountID:   o.acct.id,
			Identifiers: append([]Identifier(nil), o.ids...),
			Profile:     o.profile,
			Replaces:    o.replaces,
			Status:      o.statusLocked(),
			Created:     o.created,
			Finalized:   o.accepted,
		}
		if o.cert != nil {
			info.Serial = new(big.Int).Set(o.cert.leaf.SerialNumber)
		}
		out = append(out, info)
	}
	return out
}

// Certificates returns the leaves issued, oldest first; with [Options.KeepCertificates] at least that
// many of the last ones.
func (c *CA) Certificates() []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*x509.Certificate, len(c.certList))
	for i, cert := range c.certList {
		out[i] = cert.leaf
	}
	return out
}

// Accounts returns the number of accounts, deactivated ones included.
func (c *CA) Accounts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.accounts)
}
