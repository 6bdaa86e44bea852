package fakeca

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (c *CA) finalize(_ context.Context, in *call) (*reply, error) {
	var ask struct {
		CSR string `json:"csr"`
	}
	if bad := in.decode(&ask); bad != nil {
		return nil, bad
	}
	der, err := decode64(ask.CSR)
	if err != nil {
		return nil, badCSR("the CSR is not base64url")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		return nil, badCSR("the CSR cannot be read or its signature is wrong")
	}
	o, again, bad := c.accept(in, csr)
	if bad != nil {
		return nil, bad
	}
	if !again {
		lifetime, ok := c.opt.Profiles[o.profile]
		if !ok {
			lifetime = c.opt.DefaultLifetime
		}
		leaf, err := c.leaf(csr, o.ids, lifetime)
		c.store(o, leaf, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.orderReplyLocked(in, o, http.StatusOK), nil
}

// accept lets a finalize request through. again is true when the order has been finalized, but is
// still seen ready.
func (c *CA) accept(in *call, csr *x509.CertificateRequest) (o *order, again bool, bad *Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, bad = c.orderLocked(in); bad != nil {
		return nil, false, bad
	}
	if status := o.statusLocked(); status != "ready" || c.opt.FinalizeOnce && o.accepted > 0 {
		return nil, false, NewProblem("orderNotReady", http.StatusForbidden,
			`order's status ("`+status+`") is not acceptable for finalization`)
	}
	if bad = checkCSR(csr, o.ids); bad != nil {
		return nil, false, bad
	}
	if in.key.equal(csr.PublicKey) {
		return nil, false, badCSR("the key in the CSR is the account's")
	}
	again = o.accepted > 0
	o.accepted++
	if !again {
		o.ready, o.processing = c.opt.PollsAfterFinalize, c.opt.PollsProcessing
	}
	return o, again, nil
}

func badCSR(detail string) *Problem {
	return NewProblem("badCSR", http.StatusBadRequest, detail)
}

// checkCSR compares the names in the CSR with the order's identifiers (RFC 8555 section 7.4).
func checkCSR(csr *x509.CertificateRequest, ids []Identifier) *Problem {
	if key, ok := csr.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return NewProblem("badPublicKey", http.StatusBadRequest, "the RSA key in the CSR is too short")
	}
	asked := make(map[Identifier]bool)
	for _, name := range csr.DNSNames {
		asked[Identifier{"dns", strings.ToLower(name)}] = true
	}
	for _, ip := range csr.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		asked[Identifier{"ip", addr.Unmap().String()}] = true
	}
	for _, id := range ids {
		if !asked[id] {
			return badCSR("the CSR does not have " + id.Value)
		}
	}
	if len(asked) != len(ids) {
		return badCSR("the CSR has names that the order does not have")
	}
	cn := strings.ToLower(csr.Subject.CommonName)
	if cn != "" && !slices.ContainsFunc(ids, func(id Identifier) bool { return id.Value == cn }) {
		return badCSR("the common name is not one of the order's identifiers")
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 {
		return badCSR("the CSR has names that are neither dns nor ip")
	}
	return nil
}

// issued is a certificate; guarded by CA.mu, but for what never changes: serial, leaf, acct and ids.
type issued struct {
	serial string // hexadecimal
	leaf   *x509.Certificate
	acct   *account
	ids    []Identifier
	order  *order

	replacedBy *order
	revoked    time.Time // zero: it is not
}

func serialOf(leaf *x509.Certificate) string { return leaf.SerialNumber.Text(16) }

// store puts the signed leaf into the order, or the failure.
func (c *CA) store(o *order, leaf *x509.Certificate, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		o.problem = badCSR(err.Error())
		return
	}
	o.cert = &issued{serial: serialOf(leaf), leaf: leaf, acct: o.acct, ids: o.ids, order: o}
	c.certs[o.cert.serial] = o.cert
	c.certList = append(c.certList, o.cert)
	if c.opt.OrderReuse {
		delete(c.open, o.purpose())
	}
	keep := c.opt.KeepCertificates
	if keep <= 0 || len(c.certList) <= 2*keep {
		return
	}
	// Trimmed at twice the size, so that a certificate costs a constant on average.
	drop := c.certList[:len(c.certList)-keep]
	gone := make(map[*order]bool, len(drop))
	for _, old := range drop {
		c.dropLocked(old)
		gone[old.order] = true
	}
	c.certList = slices.Clone(c.certList[len(drop):])
	c.orderList = slices.DeleteFunc(c.orderList, func(o *order) bool { return gone[o] })
}

// dropLocked forgets a certificate, its order and the authorizations that nobody will reuse.
func (c *CA) dropLocked(old *issued) {
	delete(c.certs, old.serial)
	delete(c.orders, old.order.id)
	for i, a := range old.order.authzs {
		if old.acct.valid[old.order.ids[i]] != a {
			delete(c.authzs, a.id)
		}
	}
}
