package fakeca_test

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/fakeca"
)

// csr asks for a certificate with a new key for names.
func (r *rawClient) csr(names ...string) map[string]any {
	r.t.Helper()
	return r.csrFrom(&x509.CertificateRequest{DNSNames: names})
}

func (r *rawClient) csrFrom(template *x509.CertificateRequest) map[string]any {
	r.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, ecKey(r.t, elliptic.P256()))
	if err != nil {
		r.t.Fatal(err)
	}
	return map[string]any{"csr": b64(der)}
}

func (r *rawClient) finalize(order answer, csr map[string]any) answer {
	r.t.Helper()
	return r.post(r.at(order.body["finalize"]), csr, nil)
}

func (r *rawClient) wantPolls(url string, statuses ...string) {
	r.t.Helper()
	for i, want := range statuses {
		if got := r.get(url).body["status"]; got != want {
			r.t.Errorf("poll %d says %v, want %s", i+1, got, want)
		}
	}
}

func TestP4_OrderStaysPending(t *testing.T) {
	r := newRaw(t, newCA(fakeca.Options{PollsBeforeReady: 5}))
	o := r.newOrder(nil, "example.com")
	order := o.header.Get("Location")
	r.wantPolls(order, "pending") // not counted: the authorization is pending too
	r.meet(o)
	r.finalize(o, r.csr("example.com")).want(t, 403, "orderNotReady")
	r.wantPolls(order, "pending", "pending", "pending", "pending", "pending", "ready")
	r.finalize(o, r.csr("example.com")).wantStatus(t, "valid")
}

func TestP5_OrderStaysReady(t *testing.T) {
	for _, once := range []bool{false, true} {
		ca := newCA(fakeca.Options{PollsAfterFinalize: 3, PollsProcessing: 1, FinalizeOnce: once})
		r := newRaw(t, ca)
		o := r.newOrder(nil, "example.com")
		order := o.header.Get("Location")
		r.meet(o)
		r.finalize(o, r.csr("example.com")).wantStatus(t, "ready")
		second := r.finalize(o, r.csr("example.com"))
		if once {
			second.want(t, 403, "orderNotReady")
		} else {
			second.wantStatus(t, "ready")
		}
		r.wantPolls(order, "ready", "ready", "ready", "processing", "valid", "valid")
		if got := len(ca.Certificates()); got != 1 {
			t.Errorf("%d certificates were signed, want 1", got)
		}
	}
}

func TestP7_AuthorizationStaysPending(t *testing.T) {
	ca := newCA(fakeca.Options{PollsBeforeValid: 1})
	ca.On(fakeca.Rule{Endpoint: "authz", Header: http.Header{"Retry-After": {"86400"}}})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com")
	r.meet(o)
	a := r.get(o.body["authorizations"].([]any)[0])
	a.wantStatus(t, "pending")
	if a.header.Get("Retry-After") != "86400" {
		t.Errorf("the header is %v", a.header)
	}
	r.get(o.body["authorizations"].([]any)[0]).wantStatus(t, "valid")
	r.get(o.header.Get("Location")).wantStatus(t, "ready")
}

func TestP8_FinalizeReplyLost(t *testing.T) {
	ca := newCA(fakeca.Options{FinalizeOnce: true})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com")
	r.meet(o)
	ca.On(fakeca.Rule{Endpoint: "finalize", N: 1, HangUp: fakeca.After})
	path := r.at(o.body["finalize"])
	if a, err := r.send(t.Context(), path, r.sign(r.head(path), r.csr("example.com"))); err == nil {
		t.Fatalf("got %d %s, want a lost reply", a.status, a.raw)
	}
	r.fetchNonce()
	r.finalize(o, r.csr("example.com")).want(t, 403, "orderNotReady")
	valid := r.get(o.header.Get("Location"))
	valid.wantStatus(t, "valid")
	chain := r.get(valid.body["certificate"])
	if strings.Count(chain.raw, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("the chain is %d %s", chain.status, chain.raw)
	}
	if o := ca.Orders()[0]; o.Finalized != 1 || o.Serial.Cmp(ca.Certificates()[0].SerialNumber) != 0 {
		t.Errorf("the order is %+v", o)
	}
}

func TestP10_ReuseOfAuthorizationsAndOrders(t *testing.T) {
	ca := newCA(fakeca.Options{AuthzReuse: true, OrderReuse: true})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com", "a.example.com")
	if again := r.newOrder(nil, "A.example.com", "example.com"); again.header.Get("Location") != o.header.Get("Location") {
		t.Errorf("the unfinished order was not reused: %s", again.raw)
	}
	r.meet(o)
	r.finalize(o, r.csr("example.com", "a.example.com")).wantStatus(t, "valid")
	next := r.newOrder(nil, "example.com", "a.example.com")
	next.wantStatus(t, "ready")
	if next.header.Get("Location") == o.header.Get("Location") {
		t.Error("a finished order was reused")
	}
	r.newOrder(nil, "*.example.com").want(t, 400, "rejectedIdentifier") // only dns-01 could prove it
	newRaw(t, ca).newOrder(nil, "example.com").wantStatus(t, "pending")

	// A deactivated authorization is not reused.
	r.post(r.at(next.body["authorizations"].([]any)[0]), map[string]any{"status": "deactivated"}, nil).wantStatus(t, "deactivated")
	r.get(next.header.Get("Location")).wantStatus(t, "invalid")
	r.newOrder(nil, "example.com").wantStatus(t, "pending")
}

func TestP11_StrangeChallenges(t *testing.T) {
	ca := newCA(fakeca.Options{Challenges: []string{"dns-persist-01", "foo-99", "dns-01", "http-01"}})
	r := newRaw(t, ca)
	types := func(name string) (out []string) {
		o := r.newOrder(nil, name)
		for _, ch := range r.get(o.body["authorizations"].([]any)[0]).body["challenges"].([]any) {
			ch := ch.(map[string]any)
			out = append(out, ch["type"].(string))
			if _, ok := ch["token"]; ok == (ch["type"] == "dns-persist-01") {
				t.Errorf("the challenge is %v", ch)
			}
		}
		return out
	}
	for name, want := range map[string][]string{
		"example.com":   {"dns-persist-01", "foo-99", "dns-01", "http-01"},
		"*.example.com": {"dns-persist-01", "dns-01"},
		"192.0.2.1":     {"foo-99", "http-01"},
	} {
		if got := types(name); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestValidationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers []error
		ca := newCA(fakeca.Options{Validate: func(ctx context.Context, _ fakeca.ChallengeInfo) error {
			err := answers[0]
			answers = answers[1:]
			if err == nil {
				<-ctx.Done()
				return ctx.Err()
			}
			return err
		}})
		u := newUser(t, ca)
		for err, kind := range map[error]string{
			errors.New("nobody at home"):                            "unauthorized",
			fakeca.NewProblem("connection", 400, "port 80 is shut"): "connection",
		} {
			answers = []error{err}
			order, nerr := u.NewOrder(t.Context(), u.account, acme.Order{Identifiers: identifiers("example.com")})
			if nerr != nil {
				t.Fatal(nerr)
			}
			problem(t, u.authorize(t.Context(), order, "http-01"), kind)
			order, nerr = u.GetOrder(t.Context(), u.account, order)
			if nerr != nil || order.Status != "invalid" {
				t.Errorf("the order is %s %v", order.Status, nerr)
			}
			problem(t, *order.Error, kind)
		}
		// A client that leaves while it is judged may ask again.
		answers = []error{nil, errors.New("no")}
		order, err := u.NewOrder(t.Context(), u.account, acme.Order{Identifiers: identifiers("example.com")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := u.authorize(ctx, order, "http-01"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if order, _ = u.GetOrder(t.Context(), u.account, order); order.Status != "pending" {
			t.Errorf("the order is %s, want pending", order.Status)
		}
		problem(t, u.authorize(t.Context(), order, "http-01"), "unauthorized")
	})
}

func TestNewOrderRefused(t *testing.T) {
	ca := newCA(fakeca.Options{Profiles: map[string]time.Duration{"short": time.Hour}})
	r := newRaw(t, ca)
	long := strings.Repeat("a", 64)
	tests := []struct {
		name   string
		fields map[string]any
		ids    []string
		kind   string
	}{
		{"nothing", nil, nil, "malformed"},
		{"one label", nil, []string{"localhost"}, "rejectedIdentifier"},
		{"long label", nil, []string{long + ".example"}, "rejectedIdentifier"},
		{"underscore", nil, []string{"a_b.example"}, "rejectedIdentifier"},
		{"trailing dot", nil, []string{"example.com."}, "rejectedIdentifier"},
		{"inner star", nil, []string{"a.*.example"}, "rejectedIdentifier"},
		{"not canonical", nil, []string{"2001:DB8::1"}, "malformed"},
		{"unknown profile", map[string]any{"profile": "tall"}, []string{"example.com"}, "invalidProfile"},
		{"notAfter", map[string]any{"notAfter": "2030-01-01T00:00:00Z"}, []string{"example.com"}, "malformed"},
		{"other type", map[string]any{"identifiers": []any{map[string]string{"type": "email", "value": "a@b.example"}}}, nil, "unsupportedIdentifier"},
		{"address as name", map[string]any{"identifiers": []any{map[string]string{"type": "dns", "value": "192.0.2.1"}}}, nil, "rejectedIdentifier"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { r.newOrder(tt.fields, tt.ids...).want(t, 400, tt.kind) })
	}
	two := r.newOrder(nil, "localhost", "example.com", "a_b.example")
	two.want(t, 400, "rejectedIdentifier")
	if subs, _ := two.body["subproblems"].([]any); len(subs) != 2 {
		t.Errorf("want a subproblem for each bad identifier: %s", two.raw)
	}
}

func TestFinalizeRefusesCSR(t *testing.T) {
	r := newRaw(t, newCA(fakeca.Options{}))
	o := r.newOrder(nil, "example.com", "b.example")
	r.finalize(o, r.csr("example.com", "b.example")).want(t, 403, "orderNotReady")
	r.meet(o)
	stranger := newRaw(t, r.ca)
	stranger.finalize(o, r.csr("example.com", "b.example")).want(t, 403, "unauthorized")
	own, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"example.com", "b.example"}}, r.key)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"example.com", "b.example"}
	for name, csr := range map[string]map[string]any{
		"a name less":       r.csr("example.com"),
		"a name more":       r.csr("example.com", "b.example", "c.example"),
		"another name":      r.csr("example.com", "c.example"),
		"foreign CN":        r.csrFrom(&x509.CertificateRequest{DNSNames: names, Subject: pkix.Name{CommonName: "c.example"}}),
		"an email":          r.csrFrom(&x509.CertificateRequest{DNSNames: names, EmailAddresses: []string{"a@b.example"}}),
		"account's own key": {"csr": b64(own)},
		"broken":            {"csr": b64([]byte("x"))},
		"not base64":        {"csr": "%"},
	} {
		t.Run(name, func(t *testing.T) { r.finalize(o, csr).want(t, 400, "badCSR") })
	}
	good := r.csrFrom(&x509.CertificateRequest{DNSNames: []string{"B.example", "example.com"}, Subject: pkix.Name{CommonName: "example.com"}})
	r.finalize(o, good).wantStatus(t, "valid")
	if leaf := r.ca.Certificates()[0]; leaf.Subject.CommonName != "example.com" {
		t.Errorf("the common name is %q", leaf.Subject.CommonName)
	}
}

func TestSetOrderStatus(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com")
	r.meet(o)
	if err := ca.SetOrderStatus("none", "valid"); err == nil {
		t.Error("an unknown order was taken")
	}
	id := ca.Orders()[0].ID
	for _, status := range []string{"processing", "invalid", "pending"} {
		if err := ca.SetOrderStatus(id, status); err != nil {
			t.Fatal(err)
		}
		r.wantPolls(o.header.Get("Location"), status, status)
		r.finalize(o, r.csr("example.com")).want(t, 403, "orderNotReady")
	}
	if err := ca.SetOrderStatus(id, ""); err != nil {
		t.Fatal(err)
	}
	r.wantPolls(o.header.Get("Location"), "ready")
}

func TestP22_ChainShapes(t *testing.T) {
	ca := newCA(fakeca.Options{
		Alternates: 2,
		Chain: func(leaf, intermediate, root *x509.Certificate) []byte {
			return []byte(leaf.SerialNumber.Text(16) + "," + intermediate.Issuer.CommonName + "," + root.Subject.CommonName)
		},
	})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com")
	r.meet(o)
	url := r.finalize(o, r.csr("example.com")).body["certificate"].(string)
	serial := ca.Certificates()[0].SerialNumber.Text(16)
	for suffix, root := range map[string]string{"": "Fake Root", "/1": "Fake Root 2", "/2": "Fake Root 3"} {
		a := r.get(url + suffix)
		if want := serial + "," + root + "," + root; a.raw != want {
			t.Errorf("got %q, want %q", a.raw, want)
		}
		alternates := slices.DeleteFunc(a.header.Values("Link"), func(s string) bool { return !strings.Contains(s, "alternate") })
		if len(alternates) != 2 {
			t.Errorf("the links are %v", a.header.Values("Link"))
		}
	}
	if a := r.get(url + "/3"); a.status != http.StatusNotFound {
		t.Errorf("a fourth chain: %d", a.status)
	}
	newRaw(t, ca).get(url).want(t, 403, "unauthorized")
}

// TestH18_ClockOfCertificates covers lifetimes, profiles and a NotBefore in the past or the future.
func TestH18_ClockOfCertificates(t *testing.T) {
	for _, backdate := range []time.Duration{0, time.Hour, -time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(1500 * time.Millisecond)
			ca := newCA(fakeca.Options{Backdate: backdate, Profiles: map[string]time.Duration{"short": 160 * time.Hour}, OCSPURL: "http://ocsp.test"})
			u := newUser(t, ca)
			for profile, life := range map[string]time.Duration{"": 90 * 24 * time.Hour, "short": 160 * time.Hour} {
				now := time.Now()
				leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com"), Profile: profile})
				if got := now.Truncate(time.Second).Sub(leaf.NotBefore); got.Round(time.Minute) != backdate {
					t.Errorf("backdated by %v, want %v", got, backdate)
				}
				if got := leaf.NotAfter.Sub(leaf.NotBefore); got != life {
					t.Errorf("profile %q: the lifetime is %v, want %v", profile, got, life)
				}
				if !slices.Equal(leaf.OCSPServer, []string{"http://ocsp.test"}) {
					t.Errorf("the responders are %v", leaf.OCSPServer)
				}
			}
		})
	}
}
