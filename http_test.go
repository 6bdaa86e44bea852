package certwright_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/storage"
)

const wellKnown = "/.well-known/acme-challenge/"

// answering returns a Manager and the challenges of another instance on the same
// storage, which it answers too.
func answering(t testing.TB) (*Manager, *challenge.Table) {
	t.Helper()
	shared := storage.NewMemory()
	return offline(t, newFakeSigner(t), func(c *Config) { c.Storage = shared }), tableOn(t, shared)
}

// presentHTTP makes an http-01 challenge pending.
func presentHTTP(t testing.TB, others *challenge.Table, name, token string) challenge.Challenge {
	t.Helper()
	ch := challenge.Challenge{Type: challenge.HTTP01, Identifier: name, Token: token, KeyAuthorization: token + ".thumbprint"}
	if err := others.Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	return ch
}

// teapot is the caller's own handler.
var teapot = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Own", r.URL.EscapedPath())
	w.WriteHeader(http.StatusTeapot)
	_, _ = io.WriteString(w, "own "+r.Method) // a recorder does not fail
})

// Validation requests for other clients' challenges reach the handler behind,
// untouched; our own are answered whatever the Host (F67).
func TestForeignTokensReachTheHandlerBehind(t *testing.T) {
	m, others := answering(t)
	h := m.HTTPHandler(teapot)
	foreign := func() {
		t.Helper()
		for _, tc := range []struct{ host, path string }{
			{"example.com", wellKnown + "foreign-token"},
			{"example.com", wellKnown},
			{"example.com", wellKnown + "own-token/"},
			{"example.com", wellKnown + "own-token/x"},
			{"example.com", "/.well-known/acme-challenge"},
			{"example.com", "/x" + wellKnown + "own-token"},
			{"", wellKnown + "foreign-token"},
		} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "http://x"+tc.path, nil)
			r.Host = tc.host
			h.ServeHTTP(w, r)
			if w.Code != http.StatusTeapot || w.Body.String() != "own GET" || w.Header().Get("X-Own") != tc.path || w.Header().Get("Content-Type") == "text/plain; charset=utf-8" && w.Header().Get("Cache-Control") != "" {
				t.Errorf("%s %s: %d %q %v; want the handler behind", tc.host, tc.path, w.Code, w.Body, w.Header())
			}
		}
	}
	foreign()
	ch := presentHTTP(t, others, "example.com", "own-token")
	foreign()
	for _, host := range []string{"example.com", "behind.a.proxy.example.org", ""} { // a token cannot be guessed
		if w := ask(h, host, wellKnown+"own-token"); w.Code != http.StatusOK {
			t.Errorf("own challenge for %q: %d", host, w.Code)
		}
	}
	if err := others.CleanUp(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	foreign()
	if w := ask(h, "example.com", wellKnown+"own-token"); w.Code != http.StatusTeapot {
		t.Errorf("a challenge that was cleaned up is answered: %d", w.Code)
	}
}

func ask(h http.Handler, host, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://x"+path, nil)
	r.Host = host
	h.ServeHTTP(w, r)
	return w
}

// The challenge goes before a redirect, an authentication and a routing by host
// inside.
func TestChallengeGoesBeforeTheHandlerInside(t *testing.T) {
	m, others := answering(t)
	presentHTTP(t, others, "example.com", "token")
	for _, inner := range []http.Handler{
		nil, // the Manager's own redirect
		http.RedirectHandler("https://elsewhere.example.com/", http.StatusFound),
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you?", http.StatusUnauthorized) }),
		http.NotFoundHandler(),
	} {
		h := m.HTTPHandler(inner)
		w := ask(h, "example.com", wellKnown+"token")
		if w.Code != http.StatusOK || w.Body.String() != "token.thumbprint" {
			t.Errorf("%d %q, want the key authorization", w.Code, w.Body)
		}
		if w := ask(h, "example.com", "/"); w.Code == http.StatusOK {
			t.Errorf("another path got the challenge's answer: %q", w.Body)
		}
	}
}

// Only known tokens are answered, never as anything that a browser runs.
func TestFormsOfValidationRequests(t *testing.T) {
	m, others := answering(t)
	presentHTTP(t, others, "example.com", "to-k_en")
	presentHTTP(t, others, "203.0.113.1", "ip4")
	presentHTTP(t, others, "2001:db8::1", "ip6")
	ln := listenPort(t, 0)
	serveHTTP(t, ln, m.HTTPHandler(teapot))
	const own = "own"
	for _, tc := range []struct{ method, target, host, want string }{
		{"GET", wellKnown + "to-k_en", "example.com", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "EXAMPLE.com", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "example.com.", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "example.com:80", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "Example.Com.:8080", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en?x=<script>", "example.com", "to-k_en.thumbprint"},
		{"GET", "http://example.com" + wellKnown + "to-k_en", "ignored.example.com", "to-k_en.thumbprint"}, // absolute form (RFC 9112 §3.2.2)
		{"HEAD", wellKnown + "to-k_en", "example.com", ""},
		{"GET", wellKnown + "ip4", "203.0.113.1", "ip4.thumbprint"},
		{"GET", wellKnown + "ip4", "203.0.113.1:80", "ip4.thumbprint"},
		{"GET", wellKnown + "ip6", "[2001:db8::1]", "ip6.thumbprint"},
		{"GET", wellKnown + "ip6", "[2001:DB8:0::1]:80", "ip6.thumbprint"},
		{"POST", wellKnown + "to-k_en", "example.com", own},
		{"PUT", wellKnown + "to-k_en", "example.com", own},
		{"GET", wellKnown + "to-k_en/", "example.com", own},
		{"GET", "/" + wellKnown + "to-k_en", "example.com", own},
		{"GET", wellKnown + "/to-k_en", "example.com", own},
		{"GET", wellKnown + "TO-K_EN", "example.com", own},
		{"GET", wellKnown + "%2e%2e/to-k_en", "example.com", own},
		{"GET", wellKnown + "<script>alert(1)</script>", "example.com", own},
		{"GET", wellKnown + "to-k_en%00", "example.com", own},
		{"GET", wellKnown + strings.Repeat("a", 4000), "example.com", own},
		{"GET", wellKnown + "to-k_en", "[example.com", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "example.com:80:80", "to-k_en.thumbprint"},
		{"GET", wellKnown + "to-k_en", "a,example.com", "to-k_en.thumbprint"},
	} {
		resp, body := raw(t, ln.Addr().String(), fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", tc.method, tc.target, tc.host))
		what := tc.method + " " + tc.target + " for " + tc.host
		if tc.want == own {
			if resp.StatusCode == http.StatusOK || strings.Contains(body, "thumbprint") || strings.Contains(body, "script") {
				t.Errorf("%s: %d %q, want it left to the handler behind", what, resp.StatusCode, body)
			}
			continue
		}
		if resp.StatusCode != http.StatusOK || body != tc.want {
			t.Errorf("%s: %d %q, want %q", what, resp.StatusCode, body, tc.want)
		}
		if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v, want text/plain that is not sniffed", what, resp.Header)
		}
	}
}

// raw sends a request as it is.
func raw(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Method: request[:strings.Index(request, " ")]}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func FuzzHTTPHandler(f *testing.F) {
	for _, s := range []string{"token", "", "../token", "%2e", "a/b", "<b>", strings.Repeat("x", 300)} {
		f.Add(s, "example.com")
	}
	f.Add("token", "[::1]:80")
	m, others := answering(f)
	presentHTTP(f, others, "example.com", "token")
	f.Fuzz(func(t *testing.T, token, host string) {
		r := &http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: wellKnown + token}}
		w := httptest.NewRecorder()
		m.HTTPHandler(teapot).ServeHTTP(w, r)
		if answered := w.Code == http.StatusOK; answered && (token != "token" || w.Body.String() != "token.thumbprint") {
			t.Errorf("%q for %q: %q", token, host, w.Body)
		}
	})
}

// F65: to the public port, unless told.
func TestRedirectsToHTTPS(t *testing.T) {
	for _, tc := range []struct {
		tlsPort            int
		method, host, path string
		status             int
		want               string
	}{
		{443, "GET", "example.com", "/", 301, "https://example.com/"},
		{443, "HEAD", "example.com", "/a?b=c&d=%2F", 301, "https://example.com/a?b=c&d=%2F"},
		{443, "POST", "example.com", "/form", 308, "https://example.com/form"},
		{443, "DELETE", "example.com", "/x", 308, "https://example.com/x"},
		{443, "GET", "example.com:80", "/", 301, "https://example.com/"},
		{443, "GET", "Example.COM.:8080", "/", 301, "https://example.com/"},
		{0, "GET", "example.com:80", "/", 301, "https://example.com/"},
		{8443, "GET", "example.com:8080", "/", 301, "https://example.com:8443/"},
		{443, "GET", "203.0.113.1:80", "/", 301, "https://203.0.113.1/"},
		{443, "GET", "[2001:db8::1]", "/", 301, "https://[2001:db8::1]/"},
		{443, "GET", "[2001:db8::1]:80", "/", 301, "https://[2001:db8::1]/"},
		{8443, "GET", "[2001:db8::1]:80", "/", 301, "https://[2001:db8::1]:8443/"},
		{443, "GET", "example.com", "//evil.example.org/x", 301, "https://example.com//evil.example.org/x"},
		{443, "GET", "example.com", `/\evil.example.org`, 301, `https://example.com/%5Cevil.example.org`},
		{443, "GET", "example.com", "/a%0d%0ab", 301, "https://example.com/a%0d%0ab"},
		{443, "GET", "example.com", "http:.evil.example.org/", 301, "https://example.com/"}, // not the path of a URL
		{443, "OPTIONS", "example.com", "*", 308, "https://example.com/"},
		{443, "GET", "", "/", 400, ""},
		{443, "GET", "*.example.com", "/", 400, ""},
		{443, "GET", "exa mple.com", "/", 400, ""},
		{443, "GET", "user@example.com", "/", 400, ""},
		{443, "GET", "example.com/path", "/", 400, ""},
		{443, "GET", "[fe80::1%25eth0]", "/", 400, ""},
		{443, "GET", "[::1", "/", 400, ""},
		{443, "GET", "a:b:c", "/", 400, ""},
	} {
		m := offline(t, newFakeSigner(t), func(c *Config) { c.RedirectPort = tc.tlsPort })
		u, err := url.ParseRequestURI(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		m.HTTPHandler(nil).ServeHTTP(w, &http.Request{Method: tc.method, Host: tc.host, URL: u, RequestURI: tc.path, Header: http.Header{}})
		if w.Code != tc.status || w.Header().Get("Location") != tc.want {
			t.Errorf("%s %q for %q: %d to %q, want %d to %q", tc.method, tc.path, tc.host, w.Code, w.Header().Get("Location"), tc.status, tc.want)
		}
		if tc.host != "" && tc.status == 400 && strings.Contains(w.Body.String(), tc.host) {
			t.Errorf("the answer repeats the host %q", tc.host)
		}
	}
}
