package certwright

import "net/http"

// SetOCSPTransport has a test answer what OCSP responders are asked. It is called
// before anything is managed.
func (m *Manager) SetOCSPTransport(t http.RoundTripper) { m.ocspClient.Transport = t }
