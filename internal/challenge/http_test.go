package challenge_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/challenge"
)

// serve sends a request as it comes over the wire to a handler with the
// program's own behind it.
func serve(t *testing.T, table *challenge.Table, raw string) *http.Response {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	rec := httptest.NewRecorder()
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "own "+r.Method+" "+r.URL.Path)
	})
	if !table.Handle(rec, req) {
		own.ServeHTTP(rec, req)
	}
	return rec.Result()
}

type handleRow struct{ method, target, host, want string }

// handleRows are requests with the answer to them; none is for the program.
func handleRows() map[string]handleRow {
	const path = "/.well-known/acme-challenge/"
	return map[string]handleRow{
		"plain":               {"GET", path + "tok-1_Z", "a.example.com", "tok-1_Z.thumb"},
		"query":               {"GET", path + "tok-1_Z?x=<script>", "a.example.com", "tok-1_Z.thumb"},
		"port":                {"GET", path + "tok-1_Z", "a.example.com:80", "tok-1_Z.thumb"},
		"upper case":          {"GET", path + "tok-1_Z", "A.Example.COM", "tok-1_Z.thumb"},
		"dot":                 {"GET", path + "tok-1_Z", "a.example.com.", "tok-1_Z.thumb"},
		"all three":           {"GET", path + "tok-1_Z", "A.example.com.:8080", "tok-1_Z.thumb"},
		"absolute form":       {"GET", "http://a.example.com" + path + "tok-1_Z", "ignored.example.com", "tok-1_Z.thumb"},
		"IPv4":                {"GET", path + "tok4", "192.0.2.7", "tok4.thumb"},
		"IPv6":                {"GET", path + "tok6", "[2001:db8::7]", "tok6.thumb"},
		"IPv6 with port":      {"GET", path + "tok6", "[2001:DB8::7]:80", "tok6.thumb"},
		"escaped token":       {"GET", path + "tok%2D1_Z", "a.example.com", "tok-1_Z.thumb"},
		"token of lower case": {"GET", path + "tok-1_z", "a.example.com", ""},
		"unknown token":       {"GET", path + "other", "a.example.com", ""},
		"another host":        {"GET", path + "tok-1_Z", "backend:8080", "tok-1_Z.thumb"}, // from a proxy
		"no host":             {"GET", path + "tok-1_Z", "", "tok-1_Z.thumb"},
		"odd host":            {"GET", path + "tok-1_Z", "[", "tok-1_Z.thumb"},
		"no token":            {"GET", path, "a.example.com", ""},
		"trailing slash":      {"GET", path + "tok-1_Z/", "a.example.com", ""},
		"below":               {"GET", path + "tok-1_Z/x", "a.example.com", ""},
		"two slashes":         {"GET", "//.well-known/acme-challenge/tok-1_Z", "a.example.com", ""},
		"slash in between":    {"GET", "/.well-known//acme-challenge/tok-1_Z", "a.example.com", ""},
		"dots":                {"GET", path + "../acme-challenge/tok-1_Z", "a.example.com", ""},
		"escaped dots":        {"GET", path + "%2e%2e/tok-1_Z", "a.example.com", ""},
		"escaped slash":       {"GET", path + "%2ftok-1_Z", "a.example.com", ""},
		"script":              {"GET", path + "%3Cscript%3Ealert(1)%3C/script%3E", "a.example.com", ""},
		"nul":                 {"GET", path + "tok-1_Z%00", "a.example.com", ""},
		"long":                {"GET", path + strings.Repeat("a", 5000), "a.example.com", ""},
		"other case of path":  {"GET", "/.Well-Known/acme-challenge/tok-1_Z", "a.example.com", ""},
		"POST":                {"POST", path + "tok-1_Z", "a.example.com", ""},
		"PUT":                 {"PUT", path + "tok-1_Z", "a.example.com", ""},
		"OPTIONS":             {"OPTIONS", path + "tok-1_Z", "a.example.com", ""},
		"odd method":          {"BREW", path + "tok-1_Z", "a.example.com", ""},
	}
}

// T10, F67.
func TestAnswersOnlyTheTokenOfAChallenge(t *testing.T) {
	table := instance(t, nil)
	present(t, table, httpChallenge("a.example.com", "tok-1_Z"))
	present(t, table, httpChallenge("2001:db8::7", "tok6"))
	present(t, table, httpChallenge("192.0.2.7", "tok4"))
	for name, row := range handleRows() {
		t.Run(name, func(t *testing.T) {
			resp := serve(t, table, row.method+" "+row.target+" HTTP/1.1\r\nHost: "+row.host+"\r\n\r\n")
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if row.want == "" {
				if resp.StatusCode != http.StatusTeapot || !strings.HasPrefix(string(body), "own "+row.method) || resp.Header.Get("X-Content-Type-Options") != "" {
					t.Errorf("the program's own handler was not reached untouched: %d %q %v", resp.StatusCode, body, resp.Header)
				}
				return
			}
			if resp.StatusCode != 200 || string(body) != row.want {
				t.Errorf("%d %q, want %q", resp.StatusCode, body, row.want)
			}
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("header %v", resp.Header)
			}
		})
	}
}

func TestAnswersHeadWithoutABody(t *testing.T) {
	table := instance(t, nil)
	present(t, table, httpChallenge("a.example.com", "tok1"))
	resp := serve(t, table, "HEAD /.well-known/acme-challenge/tok1 HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || len(body) != 0 || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
}

// T1: another ACME client behind the program keeps its challenges, before, during
// and after one of ours, also with a store that fails.
func TestForeignTokenReachesTheProgram(t *testing.T) {
	store := &fakeStore{}
	table := instance(t, store)
	foreign := func(when string) {
		t.Helper()
		resp := serve(t, table, "GET /.well-known/acme-challenge/foreign HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		if resp.StatusCode != http.StatusTeapot {
			t.Errorf("%s: %d", when, resp.StatusCode)
		}
	}
	foreign("before")
	ch := httpChallenge("a.example.com", "tok1")
	present(t, table, ch)
	foreign("during")
	store.fail(io.ErrUnexpectedEOF)
	foreign("with a failing store")
	store.fail(nil)
	if err := table.CleanUp(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	foreign("after")
	resp := serve(t, table, "GET /.well-known/acme-challenge/tok1 HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("our token after the clean-up: %d", resp.StatusCode)
	}
}

// The challenge route is a pattern that net/http takes, and it is reached.
func TestChallengeRouteIsAPatternOfServeMux(t *testing.T) {
	table := instance(t, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+challenge.PathPrefix+"{token}", func(w http.ResponseWriter, r *http.Request) {
		if !table.Handle(w, r) {
			http.NotFound(w, r)
		}
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	present(t, table, httpChallenge("a.example.com", "tok1"))
	for token, want := range map[string]int{"tok1": 200, "tok2": 404} {
		resp, err := srv.Client().Get(srv.URL + challenge.PathPrefix + token)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != want || want == 200 && string(body) != "tok1.thumb" {
			t.Errorf("%s: %d %q %v", token, resp.StatusCode, body, err)
		}
	}
}

func FuzzHandle(f *testing.F) {
	f.Add("/.well-known/acme-challenge/tok1", "a.example.com")
	f.Add("/.well-known/acme-challenge/<script>", "[::1]:80")
	f.Add("//.well-known/acme-challenge/tok1?x", "a.example.com:")
	table := challenge.New(challenge.Options{})
	if err := table.Present(f.Context(), httpChallenge("a.example.com", "tok1")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL.Path, req.Host = path, host
		rec := httptest.NewRecorder()
		answered := table.Handle(rec, req)
		switch {
		case answered && (path != challenge.PathPrefix+"tok1" || rec.Body.String() != "tok1.thumb"):
			t.Errorf("%q at %q: answered %q", path, host, rec.Body)
		case !answered && (rec.Body.Len() > 0 || len(rec.Header()) > 0):
			t.Errorf("%q at %q: not answered and yet written to", path, host)
		}
	})
}

func FuzzHostOnly(f *testing.F) {
	for _, s := range []string{"", "a:80", "[::1]:80", "[", "::1", "a:b:c", "[]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := challenge.HostOnly(s); len(got) > len(s) || !strings.Contains(s, got) {
			t.Errorf("HostOnly(%q) = %q", s, got)
		}
	})
}
