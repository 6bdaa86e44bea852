package fakeca_test

import (
	"crypto/elliptic"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestSignedRequestsRefused(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	other := newCA(fakeca.Options{})
	ids := map[string]any{"identifiers": identifiers("example.com")}
	tests := []struct {
		name   string
		spoil  func(head map[string]any)
		status int
		kind   string
	}{
		{"unknown nonce", func(h map[string]any) { h["nonce"] = "nonsense" }, 400, "badNonce"},
		{"no nonce", func(h map[string]any) { delete(h, "nonce") }, 400, "badNonce"},
		{"other URL", func(h map[string]any) { h["url"] = r.url("new-account") }, 403, "unauthorized"},
		{"other algorithm", func(h map[string]any) { h["alg"] = "ES384" }, 400, "badSignatureAlgorithm"},
		{"no algorithm", func(h map[string]any) { h["alg"] = "none" }, 400, "badSignatureAlgorithm"},
		{"kid and jwk", func(h map[string]any) { h["jwk"] = r.jwk() }, 400, "malformed"},
		{"neither kid nor jwk", func(h map[string]any) { delete(h, "kid") }, 400, "malformed"},
		{"jwk where kid is due", func(h map[string]any) { delete(h, "kid"); h["jwk"] = r.jwk() }, 400, "malformed"},
		{"unknown account", func(h map[string]any) { h["kid"] = r.kid + "9" }, 400, "accountDoesNotExist"},
		{"P17 kid of another CA", func(h map[string]any) {
			h["kid"] = strings.TrimSuffix(other.Directory(), "directory") + "account/1"
		}, 400, "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.post("new-order", ids, tt.spoil)
			a.want(t, tt.status, tt.kind)
			if a.header.Get("Replay-Nonce") == "" {
				t.Error("the refusal carries no nonce")
			}
		})
	}
	if got := len(ca.Orders()); got != 0 {
		t.Errorf("%d orders were made", got)
	}
	r.post("new-order", ids, nil).wantStatus(t, "pending")
}

func TestNonceIsGoodOnce(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	nonce := r.nonce
	if a := r.newOrder(nil, "example.com"); a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	again := func(h map[string]any) { h["nonce"] = nonce }
	r.post("new-order", map[string]any{"identifiers": identifiers("example.com")}, again).want(t, 400, "badNonce")

	// A refused request uses its nonce up as well.
	nonce = r.nonce
	r.post("new-order", map[string]any{}, nil).want(t, 400, "malformed")
	r.post("new-order", map[string]any{"identifiers": identifiers("example.com")}, again).want(t, 400, "badNonce")
}

func TestBadSignatureRefused(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	good := r.sign(r.head("new-order"), map[string]any{"identifiers": identifiers("example.com")})
	signature := []byte(good["signature"])
	if signature[5] == 'A' {
		signature[5] = 'B'
	} else {
		signature[5] = 'A'
	}
	stranger := &rawClient{t: t, ca: ca, http: ca.Client(), key: ecKey(t, elliptic.P256()), kid: r.kid}
	tests := map[string]map[string]string{
		"flipped":        {"signature": string(signature)},
		"short":          {"signature": good["signature"][:40]},
		"missing":        {"signature": ""},
		"padded":         {"signature": good["signature"] + "=="},
		"other payload":  {"payload": b64([]byte(`{"identifiers":[]}`))},
		"not base64":     {"protected": "{}"},
		"another's key":  stranger.sign(r.head("new-order"), map[string]any{"identifiers": identifiers("example.com")}),
		"no header":      {"protected": ""},
		"payload not in": {"payload": "%"},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			jws := maps.Clone(good)
			maps.Copy(jws, change)
			a, err := r.send(t.Context(), "new-order", jws)
			if err != nil {
				t.Fatal(err)
			}
			a.want(t, 400, "malformed")
		})
	}
	if got := len(ca.Orders()); got != 0 {
		t.Errorf("%d orders were made", got)
	}
}

func TestMethodsAndContentType(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	tests := []struct {
		method, path, contentType string
		status                    int
	}{
		{http.MethodGet, "new-order", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "directory", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "new-order", "application/json", http.StatusUnsupportedMediaType},
		{http.MethodPost, "new-order", "application/jose+json", http.StatusBadRequest},
		{http.MethodGet, "nowhere", "", http.StatusNotFound},
		{http.MethodGet, "new-nonce", "", http.StatusNoContent},
		{http.MethodHead, "new-nonce", "", http.StatusOK},
		{http.MethodGet, "directory", "", http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+tt.contentType, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, r.url(tt.path), strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.contentType)
			a, err := r.do(req)
			if err != nil {
				t.Fatal(err)
			}
			if a.status != tt.status {
				t.Errorf("got %d %s, want %d", a.status, a.raw, tt.status)
			}
		})
	}
}
