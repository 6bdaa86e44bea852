package cloudflare_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/cloudflare"
	"github.com/certwright/certwright/dnsprovider/internal/providertest"
)

var _ dnsprovider.Provider = (*cloudflare.Provider)(nil)

const (
	marker     = "SECRET-marker-0123456789"
	zoneMarker = "SECRET-zone-marker-9876"
)

func newProvider(t *testing.T, a *api) *cloudflare.Provider {
	t.Helper()
	p, err := cloudflare.New(cloudflare.Config{APIToken: marker, HTTPClient: &http.Client{Transport: a}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantContents(t *testing.T, a *api, want ...string) {
	t.Helper()
	if got := a.contents(); !slices.Equal(got, want) {
		t.Errorf("the zone has %q, want %q", got, want)
	}
}

// wantError looks for texts in an error, and that no token is in it.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	providertest.WantError(t, err, []string{"SECRET"}, texts...)
}

// TestTwoValuesLiveAtOneName is over a socket.
func TestTwoValuesLiveAtOneName(t *testing.T) {
	a := newAPI("example.com")
	a.records["zone0"] = []record{{"foreign", "_acme-challenge.example.com", "TXT", `"foreign"`, 60}, {"bare", "example.com", "TXT", "one", 60}}
	srv := httptest.NewServer(a)
	defer srv.Close()
	to, _ := url.Parse(srv.URL)
	client := srv.Client()
	own := client.Transport
	client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host != "api.cloudflare.com" || r.Header.Get("Authorization") != "Bearer "+marker {
			t.Errorf("%s with %q", r.URL, r.Header.Get("Authorization"))
		}
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host = to.Scheme, to.Host
		return own.RoundTrip(r)
	})
	p, err := cloudflare.New(cloudflare.Config{APIToken: marker, HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"one", "two"} {
		added, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", value))
		want := libdns.TXT{Name: "_acme-challenge", TTL: 2 * time.Minute, Text: value}
		if err != nil || len(added) != 1 || added[0] != want {
			t.Fatalf("added %v, %v", added, err)
		}
	}
	wantContents(t, a, `_acme-challenge.example.com "foreign"`, `_acme-challenge.example.com "one"`, `_acme-challenge.example.com "two"`, "example.com one")
	deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
	if err != nil || !slices.Equal(deleted, providertest.Texts("_acme-challenge", "one")) {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
	wantContents(t, a, `_acme-challenge.example.com "foreign"`, `_acme-challenge.example.com "two"`, "example.com one")
	if deleted, err = p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil || len(deleted) != 0 {
		t.Errorf("deleted %v, %v where nothing is", deleted, err)
	}
	if n := a.count("ZONE"); n != 1 {
		t.Errorf("the zone was looked for %d times", n)
	}
	_, err = p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "two"))
	wantError(t, err, "cloudflare: adding TXT \"_acme-challenge\" in zone \"example.com\"", "81058", "HTTP 400", "already exists")
	if _, err := p.AppendRecords(t.Context(), "example.com", providertest.Texts("@", "apex")); err != nil {
		t.Fatal(err)
	}
	wantContents(t, a, `_acme-challenge.example.com "foreign"`, `_acme-challenge.example.com "two"`, `example.com "apex"`, "example.com one")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestRefusals has an answer to requests of one kind, always the same.
func TestRefusals(t *testing.T) {
	html := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, "<html>\n<p>Sorry, %s</html>%s", r.Header.Get("Authorization"), strings.Repeat(" more", 100))
		}
	}
	said := func(status int, errs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { reply(w, status, nil, errs...) }
	}
	tests := map[string]struct {
		kind     string
		answer   http.HandlerFunc
		requests int
		texts    []string
	}{
		"a zone's 403":           {"ZONE", said(403, "9109 Invalid access token"), 1, []string{"finding the zone", "HTTP 403", "9109", "Config.APIToken", "Zone:Zone:Read"}},
		"a zone's 401":           {"ZONE", said(401, "10000 Authentication error"), 1, []string{"HTTP 401", "Zone:Zone:Read"}},
		"a global key":           {"ZONE", said(400, "6003 Invalid request headers"), 1, []string{"HTTP 400", "6003", "global API key"}},
		"no right to add":        {"POST", said(403, "10000 Authentication error"), 1, []string{"HTTP 403", "Zone:DNS:Edit"}},
		"a zone's 500":           {"ZONE", said(500, "1 Oops"), 4, []string{"HTTP 500", "Oops"}},
		"a zone's HTML":          {"ZONE", html(502), 4, []string{"HTTP 502", "<html> <p>Sorry", "…"}},
		"HTML that is fine":      {"ZONE", html(200), 1, []string{"HTTP 200", "<html>"}},
		"nothing":                {"ZONE", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(504) }, 4, []string{"HTTP 504", "empty"}},
		"endless":                {"ZONE", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2<<20)) }, 1, []string{"1 MiB"}},
		"an unwell 200":          {"ZONE", said(200, "1 Not today "+marker), 1, []string{"HTTP 200", "Not today [token]"}},
		"an addition's 500":      {"POST", said(500, "1 Oops"), 1, []string{"HTTP 500", "may have been added"}},
		"an addition's 502 HTML": {"POST", html(502), 1, []string{"HTTP 502", "may have been added"}},
		"an addition's 503":      {"POST", html(503), 4, []string{"HTTP 503"}},
		"an addition's 429":      {"POST", html(429), 4, []string{"HTTP 429"}},
		"an addition's 400":      {"POST", said(400, "9021 Invalid TTL"), 1, []string{"HTTP 400", "Invalid TTL"}},
		"a look-up's 429":        {"GET", html(429), 4, []string{"deleting TXT", "HTTP 429"}},
		"a look-up's 500":        {"GET", said(500, "1 Oops"), 4, []string{"deleting TXT", "HTTP 500"}},
		"an unwell look-up":      {"GET", said(200, "1 Oops"), 1, []string{"deleting TXT", "HTTP 200", "Oops"}},
		"a deletion's 500":       {"DELETE", said(500, "1 Oops"), 4, []string{"deleting TXT", "HTTP 500"}},
		"a deletion's 403":       {"DELETE", said(403, "1 No"), 1, []string{"HTTP 403", "Zone:DNS:Edit"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI("example.com")
				a.records["zone0"] = []record{{"r", "_acme-challenge.example.com", "TXT", `"one"`, 60}}
				a.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
					if kind(r) == test.kind {
						test.answer(w, r)
					}
					return kind(r) == test.kind
				}
				change := newProvider(t, a).AppendRecords
				if test.kind == "GET" || test.kind == "DELETE" {
					change = newProvider(t, a).DeleteRecords
				}
				got, err := change(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
				wantError(t, err, append(test.texts, "cloudflare: ", `TXT "_acme-challenge" in zone "example.com"`)...)
				if len(got) != 0 || a.count(test.kind) != test.requests {
					t.Errorf("%v after %d requests, want %d", got, a.count(test.kind), test.requests)
				}
			})
		})
	}
}

// TestTroubleThatPasses has each request fail for a while.
func TestTroubleThatPasses(t *testing.T) {
	statuses := map[string][]int{"ZONE": {429, 500, 502}, "POST": {503, 429, 503}, "GET": {500, 503, 429}, "DELETE": {502, 504, 500}}
	synctest.Test(t, func(t *testing.T) {
		a := newAPI("example.com")
		a.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 3 {
				return false
			}
			w.WriteHeader(statuses[kind(r)][n-1])
			return true
		}
		p := newProvider(t, a)
		if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
			t.Fatal(err)
		}
		wantContents(t, a, `_acme-challenge.example.com "one"`)
		if deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil || len(deleted) != 1 {
			t.Fatal(deleted, err)
		}
		wantContents(t, a)
	})
}

func TestRetryAfter(t *testing.T) {
	tests := map[string]struct {
		header string
		limit  time.Duration // of the context; 0: none
		waited time.Duration
		after  time.Duration // of the error; 0: there is none
	}{
		"seconds":             {"20", 0, 20 * time.Second, 0},
		"a date":              {"Sat, 01 Jan 2000 00:00:30 GMT", 0, 30 * time.Second, 0},
		"long":                {"300", 0, 0, 5 * time.Minute},
		"beyond the deadline": {"20", 10 * time.Second, 0, 20 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI("example.com")
				a.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
					if kind(r) != "POST" || n > 1 {
						return false
					}
					w.Header().Set("Retry-After", test.header)
					w.WriteHeader(429)
					return true
				}
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				start := time.Now()
				_, err := newProvider(t, a).AppendRecords(ctx, "example.com.", providertest.Texts("_acme-challenge", "one"))
				if waited := time.Since(start); waited != test.waited {
					t.Errorf("waited for %v", waited)
				}
				if after, _ := certwright.RetryAfter(err); after != test.after {
					t.Errorf("RetryAfter is %v of %v", after, err)
				}
				if test.after == 0 && err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestLostReplies: an addition is not repeated, all else is.
func TestLostReplies(t *testing.T) {
	lost := errors.New("connection reset by peer")
	synctest.Test(t, func(t *testing.T) {
		a := newAPI("example.com")
		a.after = func(r *http.Request, n int) error {
			if n == 1 {
				return lost
			}
			return nil
		}
		p := newProvider(t, a)
		_, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
		wantError(t, err, "may have been added", lost.Error())
		if !errors.Is(err, lost) || a.count("POST") != 1 || a.count("ZONE") != 2 {
			t.Errorf("%v after %d additions and %d looks for the zone", err, a.count("POST"), a.count("ZONE"))
		}
		wantContents(t, a, `_acme-challenge.example.com "one"`)
		deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
		if err != nil || len(deleted) != 1 || a.count("DELETE") != 2 {
			t.Errorf("%v, %v after %d deletions", deleted, err, a.count("DELETE"))
		}
		wantContents(t, a)
	})
}

func TestContextEndsInTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI("example.com")
		a.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Retry-After", "50")
			w.WriteHeader(429)
			return true
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(certwright.ErrClosed) })
		start := time.Now()
		_, err := newProvider(t, a).AppendRecords(ctx, "example.com.", providertest.Texts("_acme-challenge", "one"))
		wantError(t, err, "HTTP 429")
		if !errors.Is(err, certwright.ErrClosed) || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestZones(t *testing.T) {
	a := newAPI("example.com", "other.example", "twice.example", "twice.example", "moved.example", "moved.example")
	a.zones[4].Status = "moved"
	p := newProvider(t, a)
	_, err := p.AppendRecords(t.Context(), "absent.example.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, `there is no zone "absent.example" for this token (Config.APIToken)`)
	_, err = p.DeleteRecords(t.Context(), "twice.example.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, `there are 2 zones "twice.example"`)
	if _, err = p.AppendRecords(t.Context(), "moved.example.", providertest.Texts("_acme-challenge", "one")); err != nil || len(a.records["zone5"]) != 1 {
		t.Errorf("%v: %v", err, a.records)
	}
	a.mu.Lock()
	a.zones[5].ID = "anew" // the zone was deleted and made again
	a.mu.Unlock()
	_, err = p.AppendRecords(t.Context(), "moved.example.", providertest.Texts("_acme-challenge", "two"))
	wantError(t, err, "HTTP 404", "7003")
	if _, err = p.AppendRecords(t.Context(), "moved.example.", providertest.Texts("_acme-challenge", "two")); err != nil || len(a.records["anew"]) != 1 {
		t.Errorf("%v: %v", err, a.records)
	}
}

func TestZoneTokenFindsTheZone(t *testing.T) {
	a, right := newAPI("example.com"), true
	a.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		want := "Bearer " + marker
		if kind(r) == "ZONE" {
			want = "Bearer " + zoneMarker
		}
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s with %q", r.Method, r.URL, got)
		}
		if !right {
			reply(w, 403, nil, "9109 Unauthorized to access requested resource for "+zoneMarker+" and "+marker)
		}
		return !right
	}
	conf := cloudflare.Config{APIToken: marker, ZoneToken: zoneMarker, HTTPClient: &http.Client{Transport: a}}
	p, err := cloudflare.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
		t.Fatal(err)
	}
	right = false
	_, err = p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "two"))
	wantError(t, err, "Config.APIToken needs the permission Zone:DNS:Edit")
	_, err = p.AppendRecords(t.Context(), "absent.example.", providertest.Texts("_acme-challenge", "two"))
	wantError(t, err, "Config.ZoneToken needs the permission Zone:Zone:Read")
}

// TestHungZoneLookUpHoldsNobody has one call hang in its look for the zone.
func TestHungZoneLookUpHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, hang := newAPI("example.com", "other.example"), make(chan struct{})
		a.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.URL.Query().Get("name") == "example.com" {
				<-hang
			}
			return false
		}
		p := newProvider(t, a)
		ended := make(chan error)
		go func() {
			_, err := p.AppendRecords(context.Background(), "example.com.", providertest.Texts("_acme-challenge", "one"))
			ended <- err
		}()
		synctest.Wait()
		if _, err := p.AppendRecords(t.Context(), "other.example.", providertest.Texts("_acme-challenge", "two")); err != nil {
			t.Error(err)
		}
		close(hang)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
