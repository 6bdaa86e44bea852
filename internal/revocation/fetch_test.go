package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// fakeResponder is a responder over real HTTP that answers with serve.
type fakeResponder struct {
	*httptest.Server
	asked atomic.Int32
	serve http.HandlerFunc
}

func newFakeResponder(t *testing.T, serve http.HandlerFunc) *fakeResponder {
	t.Helper()
	r := &fakeResponder{serve: serve}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		r.serve(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func write(raw []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Write(raw)
	}
}

func TestFetchSendsTheQuestion(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	var got *ocsp.Request
	var header http.Header
	r := newFakeResponder(t, nil)
	leaf := ca.leaf(42, r.URL+"/status")
	raw := ca.respond(ca.good(leaf))
	r.serve = func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		got, _ = ocsp.ParseRequest(body)
		header = req.Header
		if req.Method != http.MethodPost || req.URL.Path != "/status" {
			t.Errorf("asked with %s %s", req.Method, req.URL)
		}
		write(raw)(w, req)
	}
	s, err := Fetcher{Client: r.Client()}.Fetch(t.Context(), leaf, ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != Good || !bytes.Equal(s.Raw, raw) || s.Responder != r.URL+"/status" || !Usable(s, time.Now()) {
		t.Errorf("got %v from %q", s.Status, s.Responder)
	}
	if got == nil || got.SerialNumber.Cmp(leaf.SerialNumber) != 0 {
		t.Errorf("request is %+v", got)
	}
	if header.Get("Content-Type") != "application/ocsp-request" || header.Get("Accept") != "application/ocsp-response" {
		t.Errorf("request has header %v", header)
	}
}

func TestA14_FetchRevoked(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	first, second := newFakeResponder(t, nil), newFakeResponder(t, nil)
	leaf := ca.leaf(42, first.URL, second.URL)
	good := ca.good(leaf)
	revoked := good
	revoked.Status, revoked.RevokedAt, revoked.RevocationReason = ocsp.Revoked, ca.now, ocsp.KeyCompromise
	first.serve, second.serve = write(ca.respond(revoked)), write(ca.respond(good))
	s, err := Fetcher{Client: first.Client()}.Fetch(t.Context(), leaf, ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != Revoked || s.Reason != ocsp.KeyCompromise || second.asked.Load() != 0 {
		t.Errorf("got %v, reason %d; second responder asked %d times", s.Status, s.Reason, second.asked.Load())
	}
}

func TestFetchRefuses(t *testing.T) {
	ca, other := newFakeCA(t, time.Now()), newFakeCA(t, time.Now())
	r := newFakeResponder(t, nil)
	leaf := ca.leaf(42, r.URL)
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"nothing", write(nil), "asn1"},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<html>sign in</html>")
		}, `content type "text/html`},
		{"too large by a byte", write(make([]byte, maxResponse+1)), "larger than 65536 bytes"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 4096))
			}
		}, "larger than 65536 bytes"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "500")
			w.Write([]byte{0x30})
		}, "reading answer"},
		{"another CA's", write(other.respond(other.good(leaf))), "another issuer"},
		{"another leaf's", write(ca.respond(ca.good(ca.leaf(43)))), "matching"},
		{"connection dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.serve = tt.serve
			s, err := Fetcher{Client: r.Client()}.Fetch(t.Context(), leaf, ca.cert)
			if err == nil {
				t.Fatalf("accepted as %v", s.Status)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), r.URL) != 1 {
				t.Errorf("error %q does not say %q, or not once where", err, tt.want)
			}
			var re *ResponderError
			if errors.As(err, &re) {
				t.Errorf("is a ResponderError: %v", re)
			}
		})
	}
}

func TestFetchResponderErrors(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	r := newFakeResponder(t, nil)
	leaf := ca.leaf(42, r.URL)
	status := func(code int, retryAfter string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", retryAfter)
			w.WriteHeader(code)
		}
	}
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  ResponderError
	}{
		{"tryLater", func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Retry-After", "120")
			write(ocsp.TryLaterErrorResponse)(w, req)
		}, ResponderError{Status: ocsp.TryLater, RetryAfter: 2 * time.Minute}},
		{"unauthorized", write(ocsp.UnauthorizedErrorResponse), ResponderError{Status: ocsp.Unauthorized}},
		{"500", status(500, ""), ResponderError{HTTPStatus: 500}},
		{"503", status(503, "3600"), ResponderError{HTTPStatus: 503, RetryAfter: time.Hour}},
		{"429", status(429, ""), ResponderError{HTTPStatus: 429}},
		{"404", status(404, ""), ResponderError{HTTPStatus: 404}},
		{"204", status(204, ""), ResponderError{HTTPStatus: 204}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.serve = tt.serve
			_, err := Fetcher{Client: r.Client()}.Fetch(t.Context(), leaf, ca.cert)
			var re *ResponderError
			if !errors.As(err, &re) {
				t.Fatalf("got %v", err)
			}
			if *re != tt.want {
				t.Errorf("got %+v", *re)
			}
		})
	}
}

func TestFetchToleratesContentType(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	r := newFakeResponder(t, nil)
	leaf := ca.leaf(42, r.URL)
	raw := ca.respond(ca.good(leaf))
	r.serve = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write(raw)
	}
	s, err := Fetcher{Client: r.Client()}.Fetch(t.Context(), leaf, ca.cert)
	if err != nil || s.Status != Good {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestFetchAsksTheNextResponder(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	dead := httptest.NewServer(nil)
	dead.Close()
	good, unknown := newFakeResponder(t, nil), newFakeResponder(t, nil)
	serial42 := ca.good(ca.leaf(42))
	good.serve = write(ca.respond(serial42))
	serial42.Status = ocsp.Unknown
	unknown.serve = write(ca.respond(serial42))
	failing := newFakeResponder(t, http.NotFound)
	for _, tt := range []struct {
		name       string
		responders []string
		want       Status // 0: an error
		from       string
	}{
		{"first dead", []string{dead.URL, good.URL}, Good, good.URL},
		{"first not HTTP", []string{"ldap://localhost", good.URL}, Good, good.URL},
		{"first fails", []string{failing.URL, good.URL}, Good, good.URL},
		{"first does not know", []string{unknown.URL, good.URL}, Good, good.URL},
		{"one does not know, one fails", []string{unknown.URL, failing.URL}, Unknown, unknown.URL},
		{"all fail", []string{dead.URL, failing.URL}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Fetcher{Client: good.Client()}.Fetch(t.Context(), ca.leaf(42, tt.responders...), ca.cert)
			if tt.want != 0 {
				if err != nil || s.Status != tt.want || s.Responder != tt.from {
					t.Errorf("got %+v, %v", s, err)
				}
				return
			}
			for _, u := range tt.responders {
				if err == nil || !strings.Contains(err.Error(), u) {
					t.Errorf("error %v does not name %s", err, u)
				}
			}
		})
	}
}

func TestA13_NoResponderIsAskedNothing(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	r := newFakeResponder(t, http.NotFound)
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
	}{
		{"no responder", ca.leaf(42)},
		{"not HTTP", ca.leaf(42, "ldap://localhost")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Fetcher{Client: r.Client()}.Fetch(t.Context(), tt.leaf, ca.cert)
			if !errors.Is(err, ErrNoResponder) || s != nil || r.asked.Load() != 0 {
				t.Errorf("got %v, %v; asked %d times", s, err, r.asked.Load())
			}
		})
	}
}

func TestFetchWithAnotherIssuerSendsNothing(t *testing.T) {
	ca, other := newFakeCA(t, time.Now()), newFakeCA(t, time.Now())
	r := newFakeResponder(t, http.NotFound)
	leaf := ca.leaf(42, r.URL)
	for _, issuer := range []*x509.Certificate{nil, other.cert} {
		if _, err := (Fetcher{Client: r.Client()}).Fetch(t.Context(), leaf, issuer); err == nil {
			t.Error("no error")
		}
	}
	if n := r.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	asked := make(chan struct{})
	first := newFakeResponder(t, func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body) // the server sees the client leave only after this
		close(asked)
		<-req.Context().Done()
	})
	second := newFakeResponder(t, http.NotFound)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := Fetcher{Client: first.Client()}.Fetch(ctx, ca.leaf(42, first.URL, second.URL), ca.cert)
	if !errors.Is(err, context.Canceled) || second.asked.Load() != 0 || strings.Contains(err.Error(), second.URL) {
		t.Errorf("got %v; second responder asked %d times", err, second.asked.Load())
	}
}

// SHA-1, which only names things here, is let be where nothing but what FIPS 140-3
// approves of is. (F30)
func TestWhereOnlyFIPSIsAllowed(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^(TestFetchSendsTheQuestion|TestA14_FetchRevoked|TestParseGood|TestParseUnknown|TestParseWithoutNextUpdate)$") //nolint:gosec // this program
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
