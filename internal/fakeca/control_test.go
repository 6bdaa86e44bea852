package fakeca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/fakeca"
)

// TestP1_NoncesForgotten issues a certificate a day while the CA loses its nonces every night.
func TestP1_NoncesForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(fakeca.Options{AuthzReuse: true, KeepCertificates: 10, KeepRequests: 50})
		u := newUser(t, ca)
		const days = 90
		for day := range days {
			leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
			if leaf.NotBefore.After(time.Now()) || time.Since(leaf.NotBefore) > time.Hour {
				t.Fatalf("day %d: NotBefore is %v", day, leaf.NotBefore)
			}
			verify(t, ca, leaf, "example.com")
			time.Sleep(24 * time.Hour)
			ca.ForgetNonces()
		}
		if got := ca.Count("newOrder"); got < days {
			t.Errorf("newOrder was called %d times", got)
		}
		if got := len(ca.Certificates()); got < 10 || got > 20 {
			t.Errorf("%d certificates are kept", got)
		}
		if got := len(ca.Orders()); got < 10 || got > 20 {
			t.Errorf("%d orders are kept", got)
		}
		all := ca.Requests("")
		if len(all) != 50 || ca.Count("") < days*5 {
			t.Errorf("%d of %d requests are kept", len(all), ca.Count(""))
		}
		for i := 1; i < len(all); i++ {
			if all[i].Time.Before(all[i-1].Time) {
				t.Error("the requests are out of order")
			}
		}
	})
}

// TestP1_NonceLifetime lets nonces age.
func TestP1_NonceLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, newCA(fakeca.Options{NonceLifetime: time.Hour}))
		time.Sleep(time.Hour)
		r.newOrder(nil, "example.com").wantStatus(t, "pending")
		time.Sleep(time.Hour + time.Second)
		r.newOrder(nil, "example.com").want(t, 400, "badNonce")
		r.newOrder(nil, "example.com").wantStatus(t, "pending")
	})
}

// TestP1_MostNoncesRefused writes Pebble's habit as a rule.
func TestP1_MostNoncesRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := mathrand.New(mathrand.NewPCG(1, 2))
		ca := newCA(fakeca.Options{})
		ca.On(fakeca.Rule{
			When:    func(r *fakeca.Request) bool { return r.Method == http.MethodPost && random.IntN(100) < 30 },
			Problem: fakeca.NewProblem("badNonce", 400, "not today"),
		})
		u := newUser(t, ca)
		leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
		verify(t, ca, leaf, "example.com")
		refused := 0
		for _, r := range ca.Requests("") {
			if r.Status == http.StatusBadRequest {
				refused++
			}
		}
		if refused == 0 {
			t.Error("no nonce was refused")
		}
	})
}

func TestDownAndUp(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	ca.On(fakeca.Rule{Status: 418})
	ca.Down(nil)
	a := r.newOrder(nil, "example.com")
	if a.status != http.StatusServiceUnavailable || !strings.HasPrefix(a.raw, "<html>") || a.header.Get("Replay-Nonce") != "" {
		t.Errorf("got %d %s %v", a.status, a.raw, a.header)
	}
	ca.Down(&fakeca.Problem{Detail: "maintenance"})
	r.newOrder(nil, "example.com").want(t, 503, "serverInternal")
	ca.Down(fakeca.RateLimited(time.Hour, "too busy"))
	r.newOrder(nil, "example.com").want(t, 429, "rateLimited")
	ca.Up()
	if got := r.newOrder(nil, "example.com").status; got != 418 {
		t.Errorf("got %d, want the rule's 418", got)
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	r.newOrder(map[string]any{"profile": "none"}, "example.com")
	r.newOrder(nil, "example.com")
	got := ca.Requests("newOrder")
	if len(got) != 2 || ca.Count("newOrder") != 2 || ca.Count("finalize") != 0 || ca.Count("") != 4 {
		t.Fatalf("got %d requests, counts %d %d", len(got), ca.Count("newOrder"), ca.Count(""))
	}
	first, second := got[0], got[1]
	if first.N != 1 || first.Status != 400 || second.N != 2 || second.Status != 201 {
		t.Errorf("numbered %d %d, answered %d %d", first.N, second.N, first.Status, second.Status)
	}
	if second.Kid != r.kid || second.Method != http.MethodPost || second.URL != r.url("new-order") ||
		second.Protected.Alg != "ES256" || second.Protected.URL != second.URL ||
		string(second.Payload) != `{"identifiers":[{"type":"dns","value":"example.com"}]}` {
		t.Errorf("recorded %+v", second)
	}
	none := newCA(fakeca.Options{KeepRequests: -1})
	newRaw(t, none)
	if len(none.Requests("")) != 0 || none.Count("newAccount") != 1 {
		t.Errorf("%d kept, %d counted", len(none.Requests("")), none.Count("newAccount"))
	}
}

// TestP17_TwoCAs reaches two CAs with one client.
func TestP17_TwoCAs(t *testing.T) {
	a := newCA(fakeca.Options{BaseURL: "https://a.test"})
	b := newCA(fakeca.Options{BaseURL: "https://b.test/dir/"})
	client := &http.Client{Transport: fakeca.Network(a, b)}
	for ca, url := range map[*fakeca.CA]string{a: "https://a.test/directory", b: "https://b.test/dir/directory"} {
		if ca.Directory() != url {
			t.Errorf("the directory is %s, want %s", ca.Directory(), url)
		}
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || ca.Count("directory") != 1 {
			t.Errorf("%s was answered %d", url, resp.StatusCode)
		}
	}
	var dns *net.DNSError
	if resp, err := client.Get("https://c.test/directory"); !errors.As(err, &dns) || !dns.IsNotFound {
		if err == nil {
			resp.Body.Close()
		}
		t.Errorf("got %v, want an unknown host", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("two CAs share a host")
		}
	}()
	fakeca.Network(a, fakeca.New(fakeca.Options{BaseURL: "https://a.test/other"}))
}

func TestConcurrentUse(t *testing.T) {
	ca := newCA(fakeca.Options{OrderReuse: true, AuthzReuse: true, KeepCertificates: 12, PollsProcessing: 1})
	u := newUser(t, ca)
	u.PollInterval = time.Millisecond
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			defer ca.On(fakeca.Rule{Endpoint: "order", Mutate: func(_ *fakeca.Request, m map[string]any) { m["x"] = i }})()
			for n := range 4 {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err != nil {
					t.Error(err)
					return
				}
				name := fmt.Sprintf("n%d-%d.example", i, n)
				leaf, err := u.tryIssue(t, key, acme.Order{Identifiers: identifiers(name, "shared.example")})
				if err != nil {
					t.Error(err)
					return
				}
				verify(t, ca, leaf, name, "shared.example")
				ca.Requests("")
				ca.Orders()
				ca.Certificates()
			}
		})
	}
	wg.Wait()
	if got := ca.Count("finalize"); got != 32 {
		t.Errorf("finalize was called %d times, want 32", got)
	}
}

// BenchmarkIssue is a whole order with a reused authorization, through Transport.
func BenchmarkIssue(b *testing.B) {
	ca := newCA(fakeca.Options{AuthzReuse: true, KeepCertificates: 100})
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client()}
	key := ecKey(b, elliptic.P256())
	account, err := client.NewAccount(b.Context(), acme.Account{PrivateKey: key, TermsOfServiceAgreed: true})
	if err != nil {
		b.Fatal(err)
	}
	u := &user{Client: client, account: account}
	for b.Loop() {
		if _, err := u.tryIssue(b, ecKey(b, elliptic.P256()), acme.Order{Identifiers: identifiers("example.com")}); err != nil {
			b.Fatal(err)
		}
	}
}
