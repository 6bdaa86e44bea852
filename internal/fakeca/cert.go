package fakeca

import (
	"context"
	"crypto/x509"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// cert sends a chain: /cert/<serial>, or /cert/<serial>/<n> for an alternate.
func (c *CA) cert(_ context.Context, in *call) (*reply, error) {
	if !in.postAsGet() {
		return nil, malformed("a certificate is only read")
	}
	serial, alternate, chosen := strings.Cut(in.id, "/")
	n := 0
	if chosen {
		var err error
		if n, err = strconv.Atoi(alternate); err != nil || n < 1 || n >= len(c.pki.chains) {
			return nil, notFound("there is no alternate chain %q", alternate)
		}
	}
	c.mu.Lock()
	found := c.certs[serial]
	c.mu.Unlock()
	if found == nil {
		return nil, notFound("there is no certificate %q", serial)
	}
	if found.acct != in.acct {
		return nil, unauthorized("the certificate is another account's")
	}
	ch := c.pki.chains[n]
	var body []byte
	if c.opt.Chain != nil {
		body = c.opt.Chain(found.leaf, ch.intermediate, ch.root)
	} else {
		body = append(encodePEM(found.leaf), encodePEM(ch.intermediate)...)
	}
	out := newReply(http.StatusOK, "application/pem-certificate-chain", body)
	for i := range c.pki.chains {
		if i == n {
			continue
		}
		link := in.url("cert", serial)
		if i > 0 {
			link += "/" + strconv.Itoa(i)
		}
		out.header.Add("Link", "<"+link+`>;rel="alternate"`)
	}
	return out, nil
}

// revokeCert takes the account that the certificate was issued to, or the certificate's key
// (RFC 8555 section 7.6).
func (c *CA) revokeCert(_ context.Context, in *call) (*reply, error) {
	var ask struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason"`
	}
	if bad := in.decode(&ask); bad != nil {
		return nil, bad
	}
	der, err := decode64(ask.Certificate)
	if err != nil {
		return nil, malformed("the certificate is not base64url")
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, malformed("the certificate cannot be read")
	}
	// The reasons of RFC 5280 section 5.3.1 that an end entity has.
	if !strings.Contains(" 0 1 3 4 5 9 ", " "+strconv.Itoa(ask.Reason)+" ") {
		return nil, NewProblem("badRevocationReason", http.StatusBadRequest, "the reason "+strconv.Itoa(ask.Reason)+" is not accepted")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.certs[serialOf(leaf)]
	if found == nil || !found.leaf.Equal(leaf) {
		return nil, notFound("the certificate is not one of this CA's")
	}
	if in.acct != found.acct && (in.acct != nil || !in.key.equal(leaf.PublicKey)) {
		return nil, unauthorized("neither the certificate's account nor its key has signed the request")
	}
	if !found.revoked.IsZero() {
		return nil, NewProblem("alreadyRevoked", http.StatusBadRequest, "the certificate has been revoked already")
	}
	found.revoked = time.Now()
	return newReply(http.StatusOK, "", nil), nil
}

// byCertIDLocked finds a certificate by its renewal identifier.
func (c *CA) byCertIDLocked(id string) *issued {
	_, tail, ok := strings.Cut(id, ".")
	serial, err := decode64(tail)
	if !ok || err != nil {
		return nil
	}
	found := c.certs[new(big.Int).SetBytes(serial).Text(16)]
	if found == nil || CertID(found.leaf) != id {
		return nil
	}
	return found
}

// renewalInfo answers GET /renewal-info/<CertID> (RFC 9773 section 4).
func (c *CA) renewalInfo(_ context.Context, in *call) (*reply, error) {
	c.mu.Lock()
	found := c.byCertIDLocked(in.id)
	var revoked time.Time
	if found != nil {
		revoked = found.revoked
	}
	c.mu.Unlock()
	if found == nil {
		return nil, notFound("the certificate %q is not known", in.id)
	}
	w := c.window(found.leaf, revoked)
	if w == nil {
		return nil, notFound("there is no renewal information for %q", in.id)
	}
	info := map[string]any{"suggestedWindow": map[string]string{
		"start": w.Start.UTC().Format(time.RFC3339Nano),
		"end":   w.End.UTC().Format(time.RFC3339Nano),
	}}
	if w.ExplanationURL != "" {
		info["explanationURL"] = w.ExplanationURL
	}
	out := jsonReply(http.StatusOK, info)
	out.header.Set("Retry-After", strconv.Itoa(int(c.opt.ARIRetryAfter/time.Second)))
	return out, nil
}

func (c *CA) window(leaf *x509.Certificate, revoked time.Time) *Window {
	switch {
	case !revoked.IsZero():
		return &Window{Start: revoked.Add(-time.Hour), End: revoked.Add(-time.Hour / 2)}
	case c.opt.ARI != nil:
		return c.opt.ARI(leaf)
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	start := leaf.NotBefore.Add(life / 3 * 2)
	return &Window{Start: start, End: start.Add(life / 30)}
}
