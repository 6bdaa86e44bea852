package fakeca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/fakeca"
)

// rawClient signs and sends one request at a time and retries nothing.
type rawClient struct {
	t     *testing.T
	ca    *fakeca.CA
	http  *http.Client
	key   *ecdsa.PrivateKey
	kid   string
	nonce string // the last one received
}

// answer is a reply read to its end.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func newRaw(t *testing.T, ca *fakeca.CA) *rawClient {
	t.Helper()
	r := &rawClient{t: t, ca: ca, http: ca.Client(), key: ecKey(t, elliptic.P256())}
	r.fetchNonce()
	a := r.post("new-account", map[string]any{"termsOfServiceAgreed": true}, nil)
	if a.status != http.StatusCreated {
		t.Fatalf("newAccount was answered %d %s", a.status, a.raw)
	}
	r.kid = a.header.Get("Location")
	return r
}

func (r *rawClient) url(path string) string {
	return strings.TrimSuffix(r.ca.Directory(), "directory") + path
}

func (r *rawClient) fetchNonce() {
	r.t.Helper()
	resp, err := r.http.Head(r.url("new-nonce"))
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	r.nonce = resp.Header.Get("Replay-Nonce")
}

func (r *rawClient) jwk() map[string]any {
	point, err := r.key.PublicKey.Bytes()
	if err != nil {
		r.t.Fatal(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a JWS; nil payload is a POST-as-GET.
func (r *rawClient) sign(head map[string]any, payload any) map[string]string {
	r.t.Helper()
	var body []byte
	var err error
	if payload != nil {
		if body, err = json.Marshal(payload); err != nil {
			r.t.Fatal(err)
		}
	}
	protected, err := json.Marshal(head)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{"protected": b64(protected), "payload": b64(body)}
	sum := sha256.Sum256([]byte(out["protected"] + "." + out["payload"]))
	rr, ss, err := ecdsa.Sign(rand.Reader, r.key, sum[:])
	if err != nil {
		r.t.Fatal(err)
	}
	var sig [64]byte
	rr.FillBytes(sig[:32])
	ss.FillBytes(sig[32:])
	out["signature"] = b64(sig[:])
	return out
}

// head is the protected header of a plain request to path.
func (r *rawClient) head(path string) map[string]any {
	head := map[string]any{"alg": "ES256", "nonce": r.nonce, "url": r.url(path)}
	if r.kid == "" {
		head["jwk"] = r.jwk()
	} else {
		head["kid"] = r.kid
	}
	return head
}

// post signs and sends; spoil may change the header before it is signed.
func (r *rawClient) post(path string, payload any, spoil func(head map[string]any)) answer {
	r.t.Helper()
	head := r.head(path)
	if spoil != nil {
		spoil(head)
	}
	a, err := r.send(r.t.Context(), path, r.sign(head, payload))
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rawClient) send(ctx context.Context, path string, jws map[string]string) (answer, error) {
	r.t.Helper()
	body, err := json.Marshal(jws)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url(path), bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/jose+json")
	return r.do(req)
}

// do sends a request and keeps the nonce that comes back.
func (r *rawClient) do(req *http.Request) (answer, error) {
	r.t.Helper()
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if nonce := resp.Header.Get("Replay-Nonce"); nonce != "" {
		r.nonce = nonce
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body) // not every reply is JSON
	return a, nil
}

func (r *rawClient) newOrder(fields map[string]any, names ...string) answer {
	r.t.Helper()
	payload := map[string]any{"identifiers": identifiers(names...)}
	for k, v := range fields {
		payload[k] = v
	}
	return r.post("new-order", payload, nil)
}

// at is the path of a URL of the CA.
func (r *rawClient) at(url any) string {
	r.t.Helper()
	s, _ := url.(string)
	path, ok := strings.CutPrefix(s, r.url(""))
	if !ok {
		r.t.Fatalf("%v is not a URL of the CA", url)
	}
	return path
}

// get is a POST-as-GET to a URL.
func (r *rawClient) get(url any) answer {
	r.t.Helper()
	return r.post(r.at(url), nil, nil)
}

// meet asks for the first challenge of each authorization.
func (r *rawClient) meet(order answer) {
	r.t.Helper()
	for _, url := range order.body["authorizations"].([]any) {
		challenges := r.get(url).body["challenges"].([]any)
		first := challenges[0].(map[string]any)
		r.post(r.at(first["url"]), map[string]any{}, nil)
	}
}

func (a answer) want(t *testing.T, status int, kind string) {
	t.Helper()
	got, _ := a.body["type"].(string)
	if a.status != status || got != "urn:ietf:params:acme:error:"+kind {
		t.Errorf("got %d %s, want %d %s", a.status, a.raw, status, kind)
	}
}

func (a answer) wantStatus(t *testing.T, status string) {
	t.Helper()
	if a.status >= http.StatusBadRequest || a.body["status"] != status {
		t.Errorf("got %d %s, want status %q", a.status, a.raw, status)
	}
}
