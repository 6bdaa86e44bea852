package certwright

import "net/http"

// UseResponder has m ask OCSP responders through rt. It is to be called before m
// manages anything.
func UseResponder(m *Manager, rt http.RoundTripper) { m.ocspClient.Transport = rt }
