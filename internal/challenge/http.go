package challenge

import (
	"io"
	"net/http"
	"strings"
)

// PathPrefix is where http-01 validation requests arrive (RFC 8555 §8.3).
const PathPrefix = "/.well-known/acme-challenge/"

// Handle answers r when it asks for a challenge that is pending, and reports
// whether it did.
func (t *Table) Handle(w http.ResponseWriter, r *http.Request) bool {
	token, ok := strings.CutPrefix(r.URL.Path, PathPrefix)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	keyAuth, ok := t.KeyAuthorization(r.Context(), token)
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, keyAuth) // the validator sees a short body and asks again
	}
	return true
}

// HostOnly returns a Host header without its port and brackets.
func HostOnly(host string) string {
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end > 0 {
			return host[1:end]
		}
		return host
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Count(host, ":") == 1 {
		return host[:i]
	}
	return host
}
