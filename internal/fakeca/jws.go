package fakeca

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"hash"
	"net/http"
)

// Protected is the protected header of a signed request (RFC 8555 section 6.2).
type Protected struct {
	Alg   string          `json:"alg"`
	Nonce string          `json:"nonce"`
	URL   string          `json:"url"`
	Kid   string          `json:"kid"`
	JWK   json.RawMessage `json:"jwk"`
}

type jws struct {
	protected Protected
	payload   []byte
	signed    []byte // what the signature covers
	signature []byte
}

// parseJWS decodes a flattened JWS; it checks no signature.
func parseJWS(body []byte) (*jws, *Problem) {
	var outer struct {
		Protected  string          `json:"protected"`
		Payload    *string         `json:"payload"`
		Signature  string          `json:"signature"`
		Header     json.RawMessage `json:"header"`
		Signatures json.RawMessage `json:"signatures"`
	}
	if err := json.Unmarshal(body, &outer); err != nil {
		return nil, malformed("the request is not a JWS: %v", err)
	}
	if outer.Header != nil || outer.Signatures != nil || outer.Payload == nil {
		return nil, malformed("the JWS is not in flattened form with only a protected header")
	}
	head, err := decode64(outer.Protected)
	if err != nil {
		return nil, malformed("the protected header is not base64url")
	}
	j := &jws{signed: []byte(outer.Protected + "." + *outer.Payload)}
	if err := json.Unmarshal(head, &j.protected); err != nil {
		return nil, malformed("the protected header is not JSON: %v", err)
	}
	if j.payload, err = decode64(*outer.Payload); err != nil {
		return nil, malformed("the payload is not base64url")
	}
	if j.signature, err = decode64(outer.Signature); err != nil || len(j.signature) == 0 {
		return nil, malformed("the signature is missing or not base64url")
	}
	if len(j.payload) > 0 && !json.Valid(j.payload) {
		return nil, malformed("the payload is not JSON")
	}
	return j, nil
}

// check verifies the signature with key and that the algorithm is the one that key is used with.
func (j *jws) check(key publicKey) *Problem {
	if j.protected.Alg != key.alg() {
		p := NewProblem("badSignatureAlgorithm", http.StatusBadRequest, "alg "+j.protected.Alg+" does not fit the key")
		p.Algorithms = []string{"ES256", "ES384", "RS256"}
		return p
	}
	if err := key.verify(j.signed, j.signature); err != nil {
		return malformed("%v", err)
	}
	return nil
}

// checkMAC verifies an HMAC, which is how an external account binding is signed.
func (j *jws) checkMAC(key []byte) bool {
	var h func() hash.Hash
	switch j.protected.Alg {
	case "HS256":
		h = sha256.New
	case "HS384":
		h = sha512.New384
	case "HS512":
		h = sha512.New
	default:
		return false
	}
	mac := hmac.New(h, key)
	mac.Write(j.signed)
	return hmac.Equal(mac.Sum(nil), j.signature)
}
