package managertest_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

func TestIssuesForAnIPv4Address(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*ACME)
	}{
		{"http-01", onlyHTTP01},
		{"tls-alpn-01", onlyTLSALPN01},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			m := start(t, behindServers(t, ca, tc.change))
			serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
			serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
			manage(t, m, "127.0.0.1")
			leaf := mustDial(t, ca.TLSPort(), "127.0.0.1", ca.Roots())
			if len(leaf.IPAddresses) != 1 || !leaf.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) || len(leaf.DNSNames) != 0 {
				t.Errorf("certificate for %v %v", leaf.IPAddresses, leaf.DNSNames)
			}
		})
	}
}

func TestIssuesForAnIPv6Address(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca, onlyTLSALPN01))
	ln, err := net.Listen("tcp", listenAddr("::1", ca.TLSPort()))
	if err != nil {
		t.Skip("no IPv6 loopback:", err)
	}
	serveTLS(t, ln, m.TLS(nil))
	if err := m.ManageSync(testContext(t), []string{"::1", "0:0:0:0:0:0:0:1"}); err != nil {
		t.Fatal(err)
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: "::1", RootCAs: ca.Roots()}}
	conn, err := d.DialContext(testContext(t), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if ca.Orders() != 1 {
		t.Errorf("%d orders for two spellings of one address", ca.Orders())
	}
}

func TestSeveralNamesInOneCertificate(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	names := []string{"main.example.com", "B.example.com.", "127.0.0.1", "täst.example"}
	if err := m.Manage(testContext(t), Spec{Names: names}); err != nil {
		t.Fatal(err)
	}
	if ca.Orders() != 1 {
		t.Errorf("%d orders, want 1", ca.Orders())
	}
	first := mustDial(t, ca.TLSPort(), "main.example.com", ca.Roots())
	for _, n := range []string{"b.example.com", "127.0.0.1", "xn--tst-qla.example"} {
		if leaf := mustDial(t, ca.TLSPort(), n, ca.Roots()); !leaf.Equal(first) {
			t.Errorf("%q is served another certificate", n)
		}
	}
	if err := m.Unmanage("main.example.com"); err == nil || !strings.Contains(err.Error(), "shares a certificate") {
		t.Errorf("unmanaging one of several names: %v", err)
	}
}

// RSA and ECDSA side by side: a client gets the one that it supports.
func TestServesRSAAndECDSASideBySide(t *testing.T) {
	const name = "both.example.com"
	ca := acmetest.Start(t)
	conf := behindServers(t, ca)
	conf.KeyTypes = []KeyType{P256, RSA2048}
	m := start(t, conf)
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	manage(t, m, name)
	if ca.Orders() != 2 {
		t.Errorf("%d orders for two kinds of keys", ca.Orders())
	}
	old := &tls.Config{ // knows no ECDSA certificates
		ServerName: name, RootCAs: ca.Roots(), MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	}
	for _, tc := range []struct {
		conf *tls.Config
		rsa  bool
	}{{&tls.Config{ServerName: name, RootCAs: ca.Roots()}, false}, {old, true}} {
		state, err := dialWith(t, ca.TLSPort(), tc.conf)
		if err != nil {
			t.Fatal(err)
		}
		leaf := state.PeerCertificates[0]
		_, isRSA := leaf.PublicKey.(*rsa.PublicKey)
		_, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
		if isRSA != tc.rsa || isECDSA == tc.rsa {
			t.Errorf("a key of type %T; want RSA: %v", leaf.PublicKey, tc.rsa)
		}
	}
}

// Two Managers share a storage folder; the validator reaches one of them in turn,
// so most often not the one whose challenge it is (C2).
func TestManagersAnswerEachOthersChallenges(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*ACME)
	}{
		{"http-01", onlyHTTP01},
		{"tls-alpn-01", onlyTLSALPN01},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			dir := t.TempDir()
			addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
			var managers []*Manager
			reached := make([]validations, len(addrs))
			for i, addr := range addrs {
				managers = append(managers, instance(t, &reached[i], ca, dir, addr.String(), tc.change))
			}
			names := numbered(6)
			for _, n := range names {
				ca.Rotate(n, addrs...)
			}
			errs := make(chan error)
			for _, m := range managers {
				go func() { errs <- m.ManageSync(testContext(t), names) }()
			}
			for range managers {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if ca.Orders() != len(names) {
				t.Errorf("%d orders for %d names wanted twice", ca.Orders(), len(names))
			}
			for i := range reached {
				if reached[i].http.Load() == 0 && reached[i].tls.Load() == 0 {
					t.Error("the validator reached one Manager only; this test shows nothing")
				}
			}
			if a, b := serials(managers[0]), serials(managers[1]); !slices.Equal(a, b) {
				t.Errorf("the Managers have different certificates: %v, %v", a, b)
			}
		})
	}
}

// instance is a Manager on a folder, with its servers on an address.
func instance(t *testing.T, v *validations, ca *acmetest.CA, dir, host string, change func(*ACME)) *Manager {
	t.Helper()
	d, err := storage.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	conf := behindServers(t, ca, change)
	conf.Storage = d
	m := start(t, conf)
	v.serve(t, ca, m, host)
	return m
}
