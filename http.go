package certwright

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
)

// HTTPHandler returns a handler for the plain HTTP port. It answers http-01
// validation requests for challenges that are pending, here or on another
// instance that shares the storage, and hands every other request to next,
// those for unknown tokens too. A nil next redirects to https, on the port
// Config.RedirectPort.
//
// It belongs outside of every other handler: a redirect, an authentication or a
// routing by host before it would hide the challenges from the CA.
func (m *Manager) HTTPHandler(next http.Handler) http.Handler {
	m.wiredHTTP.Store(true)
	if next == nil {
		next = http.HandlerFunc(m.redirect)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.servesHTTP.Load() {
			m.servesHTTP.Store(true)
		}
		if !m.answer(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// answer answers an http-01 validation request and reports whether r was one.
func (m *Manager) answer(w http.ResponseWriter, r *http.Request) bool {
	if !m.table.Handle(w, r) {
		return false
	}
	m.asked(challenge.HTTP01)
	return true
}

// redirect sends a request to the same URL with https.
func (m *Manager) redirect(w http.ResponseWriter, r *http.Request) {
	host, err := hostname.Normalize(challenge.HostOnly(r.Host))
	if err != nil || hostname.IsWildcard(host) {
		http.Error(w, "The Host header is not a name.", http.StatusBadRequest)
		return
	}
	switch {
	case m.conf.RedirectPort != 443:
		host = net.JoinHostPort(host, fmt.Sprint(m.conf.RedirectPort))
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	uri := r.URL.RequestURI()
	if !strings.HasPrefix(uri, "/") { // "*", or an opaque URL, which would go on with the host's name
		uri = "/"
	}
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, "https://"+host+uri, status)
}
