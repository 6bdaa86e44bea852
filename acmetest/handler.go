package acmetest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
)

const (
	// maxBody is more than any ACME request needs.
	maxBody = 1 << 20

	// finalizeLimit bounds the wait for a certificate, for an order that Pebble
	// accepts and then cannot sign, such as one with a malformed notAfter.
	finalizeLimit = 2 * time.Second
)

// ServeHTTP lets Pebble answer, one request at a time but for the directory and
// nonces, and puts right what it does wrong.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := Kind(r)
	if r.Method != http.MethodPost && (kind == KindDirectory || kind == KindNewNonce) {
		b.pebble.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	b.answer(r, orderRequestOf(kind, body)).send(w)
}

// answer runs Pebble's handler. order is what a newOrder request asks for.
func (b *backend) answer(r *http.Request, order orderRequest) *recorder {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := newRecorder()
	switch Kind(r) {
	case KindNewOrder:
		b.newOrderLocked(rec, r, order)
	case KindFinalize:
		b.pebble.ServeHTTP(rec, r)
		if rec.status == http.StatusOK {
			b.awaitCertificateLocked(strings.TrimPrefix(r.URL.Path, finalizePath))
		}
	case KindRenewalInfo:
		b.pebble.ServeHTTP(rec, r)
		if rec.status == http.StatusOK {
			b.widenLocked(rec, path.Base(r.URL.Path))
		}
	default:
		b.pebble.ServeHTTP(rec, r)
	}
	return rec
}

// orderRequest is what of a newOrder request's payload matters here.
type orderRequest struct {
	Identifiers []acme.Identifier `json:"identifiers"`
}

// orderRequestOf reads the payload of a newOrder request's JWS, in the flattened
// JSON serialisation (RFC 8555 section 6.2), without checking its signature.
// What cannot be read is empty; Pebble refuses it.
func orderRequestOf(kind string, body []byte) orderRequest {
	var jws acme.JSONSigned
	var order orderRequest
	if kind != KindNewOrder || json.Unmarshal(body, &jws) != nil {
		return orderRequest{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil || json.Unmarshal(payload, &order) != nil {
		return orderRequest{}
	}
	for i, id := range order.Identifiers {
		order.Identifiers[i] = normalIdentifier(id)
	}
	return order
}

// normalIdentifier returns id the way Pebble stores it.
func normalIdentifier(id acme.Identifier) acme.Identifier {
	id.Value = strings.ToLower(id.Value)
	if ip := net.ParseIP(id.Value); id.Type == acme.IdentifierIP && ip != nil {
		id.Value = ip.String()
	}
	return id
}

// newOrderLocked answers a newOrder request: without reuse of authorizations
// unless that is wanted, for Pebble reuses one in a hundred at the least; and
// with the block list, for Pebble's panics on the parent of a blocked name. An
// order that the list refuses stays in Pebble, and nobody learns its URL.
func (b *backend) newOrderLocked(rec *recorder, r *http.Request, order orderRequest) {
	if !b.reuse {
		b.setTypeLocked(order, "hidden")
	}
	b.pebble.ServeHTTP(rec, r)
	b.setTypeLocked(order, "")
	if rec.status != http.StatusCreated {
		return
	}
	if created := b.store.GetOrderByID(path.Base(rec.header.Get("Location"))); created != nil && !b.reuse {
		for _, authz := range created.AuthorizationObjects {
			b.authzs[authz.Identifier] = append(b.authzs[authz.Identifier], authz)
		}
	}
	for _, id := range order.Identifiers {
		if id.Type == acme.IdentifierDNS && b.isBlocked(id.Value) {
			refuse(rec, id)
			return
		}
	}
	b.counts.order()
}

// setTypeLocked gives the earlier authorizations for an order's identifiers
// another identifier type, so that Pebble does not find them for reuse; an empty
// type puts back the identifier's own. Nothing but Pebble's handlers reads it.
func (b *backend) setTypeLocked(order orderRequest, typ string) {
	for _, id := range order.Identifiers {
		for _, authz := range b.authzs[id] {
			authz.Lock()
			authz.Identifier.Type = typ
			if typ == "" {
				authz.Identifier.Type = id.Type
			}
			authz.Unlock()
		}
	}
}

// isBlocked reports whether the block list has name or a parent of it.
func (b *backend) isBlocked(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	for _, blocked := range b.blocked {
		if name == blocked || strings.HasSuffix(name, "."+blocked) {
			return true
		}
	}
	return false
}

// refuse turns the answer to an accepted order into a problem, and keeps its
// nonce.
func refuse(rec *recorder, id acme.Identifier) {
	problem := acme.RejectedIdentifierProblem(id, fmt.Sprintf("Order included an identifier for which issuance is forbidden by policy: %q", id.Value))
	body, err := json.Marshal(problem)
	if err != nil {
		panic("acmetest: encoding a problem: " + err.Error()) // strings and numbers only
	}
	rec.header.Del("Location")
	rec.header.Set("Content-Type", "application/problem+json; charset=utf-8")
	rec.status = problem.HTTPStatus
	rec.body.Reset()
	rec.body.Write(body)
}

// awaitCertificateLocked waits until the certificate of an order is issued and
// registered, and the one it replaces marked so. Pebble does this in a goroutine
// after its answer, and a client could poll in between and then replace a
// certificate that Pebble does not know yet.
func (b *backend) awaitCertificateLocked(orderID string) {
	order := b.store.GetOrderByID(orderID)
	if order == nil {
		return
	}
	waitFor(finalizeLimit, func() bool {
		order.RLock()
		cert, replaces := order.CertificateObject, order.Replaces
		order.RUnlock()
		if cert == nil {
			return false
		}
		if _, err := b.store.GetOrderByIssuedSerial(cert.ID); err != nil {
			return false
		}
		return replaces == "" || isReplaced(b.orderOfCertID(replaces))
	})
	b.registerLocked(order)
}

// registerLocked registers an order under its certificate's serial number as an
// ARI certificate identifier has it. That is the DER encoding, with a zero before
// a first bit that is set, and Pebble, which registers it without, would not find
// what is to be replaced: one certificate in 256.
func (b *backend) registerLocked(order *core.Order) {
	order.Lock()
	cert := order.CertificateObject
	order.Unlock()
	if cert == nil || cert.Cert.SerialNumber.BitLen()%8 != 0 {
		return
	}
	// The store takes the serial number from the order and nowhere else.
	setCertificate(order, &core.Certificate{ID: "00" + cert.ID})
	defer setCertificate(order, cert)
	_ = b.store.AddOrderByIssuedSerial(order) // it fails without a certificate only
}

func setCertificate(order *core.Order, cert *core.Certificate) {
	order.Lock()
	defer order.Unlock()
	order.CertificateObject = cert
}

// widenLocked gives a revoked certificate, unless its renewal info was set, the
// hour before its revocation as its suggested window. Pebble's is one second
// wide, which acmez takes for malformed.
func (b *backend) widenLocked(rec *recorder, certID string) {
	serial := new(big.Int).SetBytes(serialOfCertID(certID))
	revoked := b.store.GetRevokedCertificateBySerial(serial)
	if revoked == nil || revoked.Certificate.ARIResponse != "" {
		return
	}
	rec.body.Reset()
	rec.body.WriteString(renewalInfo(revoked.RevokedAt.Add(-time.Hour), revoked.RevokedAt, ""))
}

// renewalInfo returns a renewalInfo object (RFC 9773 section 4.2).
func renewalInfo(start, end time.Time, explanationURL string) string {
	type window struct {
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	}
	body, err := json.Marshal(struct {
		SuggestedWindow window `json:"suggestedWindow"`
		ExplanationURL  string `json:"explanationURL,omitempty"`
	}{window{start.UTC(), end.UTC()}, explanationURL})
	if err != nil {
		// Only a year beyond 9999 cannot be encoded, and a client ought to see
		// a malformed answer then.
		return "{}"
	}
	return string(body)
}

// serialOfCertID returns the serial number in an ARI certificate identifier (RFC
// 9773 section 4.1) in DER, nil when it is malformed.
func serialOfCertID(id string) []byte {
	_, serial, _ := strings.Cut(id, ".")
	der, err := base64.RawURLEncoding.DecodeString(serial)
	if err != nil {
		return nil
	}
	return der
}

// orderOfCertID returns the order whose certificate has the ARI identifier id,
// or nil.
func (b *backend) orderOfCertID(id string) *core.Order {
	order, err := b.store.GetOrderByIssuedSerial(hex.EncodeToString(serialOfCertID(id)))
	if err != nil {
		return nil
	}
	return order
}

// isReplaced reports whether order is nil or marked as replaced.
func isReplaced(order *core.Order) bool {
	if order == nil {
		return true
	}
	order.RLock()
	defer order.RUnlock()
	return order.IsReplaced
}
