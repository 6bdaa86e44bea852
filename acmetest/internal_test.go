package acmetest

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	acmez "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
)

// TestAuthorizationsAreHidden puts a valid authorization into the store and
// looks for it as Pebble does, which then reuses it by chance.
func TestAuthorizationsAreHidden(t *testing.T) {
	c := Start(t)
	b := c.backend.Load()
	id := acme.Identifier{Type: acme.IdentifierDNS, Value: "example.com"}
	authz := &core.Authorization{
		ID:            "authz",
		Order:         &core.Order{AccountID: "account"},
		ExpiresDate:   time.Now().Add(time.Hour),
		Authorization: acme.Authorization{Status: acme.StatusValid, Identifier: id},
	}
	if _, err := b.store.AddAuthorization(authz); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.authzs[id] = []*core.Authorization{authz}
	payload := []byte(`{"identifiers":[{"type":"dns","value":"EXAMPLE.com"}]}`)
	body, err := json.Marshal(acme.JSONSigned{Payload: base64.RawURLEncoding.EncodeToString(payload)})
	if err != nil {
		t.Fatal(err)
	}
	order := orderRequestOf(KindNewOrder, body)
	if b.store.FindValidAuthorization("account", id) == nil {
		t.Fatal("the authorization cannot be found at all")
	}
	b.setTypeLocked(order, "hidden")
	if b.store.FindValidAuthorization("account", id) != nil {
		t.Error("a hidden authorization is found")
	}
	b.setTypeLocked(order, "")
	if b.store.FindValidAuthorization("account", id) == nil || authz.Identifier != id {
		t.Errorf("the authorization is not put back: %+v", authz.Identifier)
	}
}

func TestNormalIdentifier(t *testing.T) {
	tests := []struct{ in, want acme.Identifier }{
		{acme.Identifier{Type: "dns", Value: "Example.COM"}, acme.Identifier{Type: "dns", Value: "example.com"}},
		{acme.Identifier{Type: "ip", Value: "2001:DB8:0::1"}, acme.Identifier{Type: "ip", Value: "2001:db8::1"}},
		{acme.Identifier{Type: "ip", Value: "nonsense"}, acme.Identifier{Type: "ip", Value: "nonsense"}},
	}
	for _, tt := range tests {
		if got := normalIdentifier(tt.in); got != tt.want {
			t.Errorf("normalIdentifier(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestOrdersAreFoundByCertID(t *testing.T) {
	c := Start(t)
	b := c.backend.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.orderOfCertID("a.b!"); got != nil {
		t.Errorf("a malformed certificate identifier leads to %v", got)
	}
	for _, serial := range []int64{0x7f01, 0x8001, 0x018001} {
		number := big.NewInt(serial)
		cert := &core.Certificate{ID: hex.EncodeToString(number.Bytes()), Cert: &x509.Certificate{SerialNumber: number}}
		order := &core.Order{CertificateObject: cert}
		if err := b.store.AddOrderByIssuedSerial(order); err != nil { // what Pebble does
			t.Fatal(err)
		}
		b.registerLocked(order)
		id, err := acmez.ARIUniqueIdentifier(&x509.Certificate{SerialNumber: number, AuthorityKeyId: []byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		if got := b.orderOfCertID(id); got != order || got.CertificateObject != cert {
			t.Errorf("serial %x: identifier %q leads to %v", serial, id, got)
		}
	}
}

func TestIsReplaced(t *testing.T) {
	if !isReplaced(nil) || isReplaced(&core.Order{}) || !isReplaced(&core.Order{IsReplaced: true}) {
		t.Error("isReplaced is wrong")
	}
}

func TestWaitForGivesUp(t *testing.T) {
	calls := 0
	waitFor(2*time.Millisecond, func() bool { calls++; return false })
	if calls == 0 {
		t.Error("the condition was never looked at")
	}
	waitFor(time.Hour, func() bool { calls++; return calls > 3 })
}

func TestActivity(t *testing.T) {
	a := newActivity()
	if !a.begin() {
		t.Fatal("a request is refused before closing")
	}
	if a.wait(time.Millisecond) {
		t.Error("wait did not see the running request")
	}
	if a.begin() {
		t.Error("a request is taken while closing")
	}
	a.end()
	select {
	case <-a.idle:
	default:
		t.Error("the end of the last request is not seen")
	}
}

func TestQueriesAreBounded(t *testing.T) {
	r := newRecords(nil)
	for range 2*maxQueries + 1 {
		r.log(Query{})
	}
	if n := len(r.queries); n > maxQueries || n < maxQueries/2 {
		t.Errorf("%d queries are kept", n)
	}
}

func TestAliasLoopEnds(t *testing.T) {
	r := newRecords(nil)
	r.aliases["a.test"], r.aliases["b.test"] = "b.test", "a.test"
	answer, _, rcode := r.lookup("a.test.", dns.TypeA)
	if rcode != dns.RcodeSuccess || len(answer) < maxAliases || len(answer) > maxAliases+1 {
		t.Errorf("rcode %d with %d records", rcode, len(answer))
	}
}

func TestFirstCertificate(t *testing.T) {
	for _, data := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if cert, err := firstCertificate([]byte(data)); err == nil || cert != nil || errors.Is(err, ErrUnknownCertificate) {
			t.Errorf("firstCertificate(%q) = %v, %v", data, cert, err)
		}
	}
}

func FuzzOrderRequestOf(f *testing.F) {
	f.Add([]byte(`{"payload":"eyJpZGVudGlmaWVycyI6W3sidHlwZSI6ImlwIiwidmFsdWUiOiI6OjEifV19"}`))
	f.Add([]byte(`{"payload":"!"}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, id := range orderRequestOf(KindNewOrder, body).Identifiers {
			if normalIdentifier(id) != id {
				t.Errorf("identifier %v is not normal", id)
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, name := range []string{".", "example.com.", "*.example.com.", "alias.example.com.", "a\\.b.com."} {
		f.Add(name, dns.TypeA)
		f.Add(name, dns.TypeTXT)
	}
	s := &dnsServer{records: newRecords(recordsByName{"*.example.com": {netip.IPv6LinkLocalAllNodes()}})}
	s.records.aliases["alias.example.com"] = "example.org"
	s.records.texts["*.com"] = []string{`quote " and \ backslash`}
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
		wire, err := query.Pack()
		if err != nil || query.Unpack(wire) != nil {
			t.Skip("not a question that can be sent")
		}
		if _, err := s.reply("udp", query).Pack(); err != nil {
			t.Errorf("the reply to %q %d cannot be sent: %v", name, qtype, err)
		}
	})
}
