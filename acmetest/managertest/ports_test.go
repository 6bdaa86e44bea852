package managertest_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

// What the program has called says nothing of whether it listens on the ports of
// the challenges (F66).
func TestListensByItselfWhateverTheProgramHasCalled(t *testing.T) {
	for _, tt := range []struct {
		name string
		call func(m *Manager)
	}{
		{"GetCertificate", func(m *Manager) { _, _ = m.GetCertificate(&tls.ClientHelloInfo{ServerName: "x.example.com"}) }},
		{"HTTPHandler", func(m *Manager) { m.HTTPHandler(nil) }},
		{"a request on another port", func(m *Manager) {
			m.HTTPHandler(nil).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://x.example.com/", nil))
		}},
		{"TLSConfig", func(m *Manager) { m.TLSConfig() }},
		{"TLS, and a handshake", func(m *Manager) {
			_, _ = m.TLS(nil).TLSConfig.GetCertificate(&tls.ClientHelloInfo{})
		}},
	} {
		for challengeType, only := range map[string]func(*ACME){"http-01": onlyHTTP01, "tls-alpn-01": onlyTLSALPN01} {
			t.Run(tt.name+"/"+challengeType, func(t *testing.T) {
				ca := acmetest.Start(t)
				m := start(t, standalone(t, ca, only))
				tt.call(m)
				manage(t, m, "a.example.com")
				if ca.Orders() != 1 {
					t.Errorf("%d orders", ca.Orders())
				}
			})
		}
	}
}

// Two Managers on one host want the same port for names of their own. Who has it
// lets go of it, and the other one goes on trying; with a common storage each
// answers for both (F66).
func TestTwoManagersOnOneHostShareThePorts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		shared bool
		only   func(*ACME)
	}{
		{"one storage, http-01", true, onlyHTTP01},
		{"one storage, tls-alpn-01", true, onlyTLSALPN01},
		{"one storage, either type", true, func(*ACME) {}},
		{"own storages, http-01", false, onlyHTTP01},
		{"own storages, tls-alpn-01", false, onlyTLSALPN01},
		{"own storages, either type", false, func(*ACME) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			store := storage.NewMemory()
			errs := make(chan error)
			for _, domain := range []string{"one.example.com", "two.example.com"} {
				conf := standalone(t, ca, tt.only)
				if tt.shared {
					conf.Storage = store
				}
				m := start(t, conf)
				go func() {
					errs <- m.ManageSync(testContext(t), []string{"a." + domain, "b." + domain, "c." + domain, "d." + domain})
				}()
			}
			for range 2 {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if ca.Orders() != 8 {
				t.Errorf("%d orders for 8 names", ca.Orders())
			}
		})
	}
}
