package revocation

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// opensslPath returns where the openssl binary is. Where the tests decide over a
// change it has to be there.
func opensslPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// pemFiles writes what openssl reads and returns the path of each.
type pemFiles struct {
	t   *testing.T
	dir string
}

func (p pemFiles) cert(name string, c *x509.Certificate) string {
	return p.write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (p pemFiles) key(name string, key *ecdsa.PrivateKey) string {
	p.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (p pemFiles) write(name string, data []byte) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// index writes the database of the openssl ca command: serial 42 is valid and 43
// was revoked; it does not know any other.
func (p pemFiles) index(revokedAt time.Time) string {
	const form = "060102150405Z"
	expires := revokedAt.Add(80 * 24 * time.Hour).Format(form)
	return p.write("index.txt", fmt.Appendf(nil, "V\t%s\t\t2A\tunknown\t/CN=leaf\n"+
		"R\t%s\t%s,keyCompromise\t2B\tunknown\t/CN=leaf\n", expires, expires, revokedAt.Format(form)))
}

// startOpenSSL runs an openssl responder and returns its address.
func startOpenSSL(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, opensslPath(t), append([]string{"ocsp", "-port", "0"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	// It prints one line such as "ACCEPT 0.0.0.0:40123 PID=77".
	accept := regexp.MustCompile(`ACCEPT .*:(\d+)`)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := accept.FindStringSubmatch(lines.Text()); m != nil {
			return "127.0.0.1:" + m[1]
		}
	}
	t.Fatal("openssl does not say its port")
	return ""
}

func TestFetchFromOpenSSL(t *testing.T) {
	opensslPath(t)
	now := time.Now().UTC().Truncate(time.Second)
	ca := newFakeCA(t, now)
	delegate, key := ca.delegate(func(*x509.Certificate) {})
	files := pemFiles{t, t.TempDir()}
	caFile, index := files.cert("ca.pem", ca.cert), files.index(now.Add(-time.Hour))
	caKey := files.key("ca.key", ca.key)
	responder, responderKey := files.cert("responder.pem", delegate), files.key("responder.key", key)
	common := []string{"-index", index, "-CA", caFile}
	for _, tt := range []struct {
		name string
		args []string
		open bool // no nextUpdate
	}{
		{"signed by the CA", []string{"-rsigner", caFile, "-rkey", caKey, "-ndays", "3"}, false},
		{"without certificates", []string{"-rsigner", caFile, "-rkey", caKey, "-ndays", "3", "-resp_no_certs"}, false},
		{"delegated", []string{"-rsigner", responder, "-rkey", responderKey, "-ndays", "3"}, false},
		{"named by key", []string{"-rsigner", responder, "-rkey", responderKey, "-ndays", "3", "-resp_key_id"}, false},
		{"without nextUpdate", []string{"-rsigner", caFile, "-rkey", caKey}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := "http://" + startOpenSSL(t, append(common, tt.args...)...)
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			f := Fetcher{Client: &http.Client{Transport: transport}}
			for serial, want := range map[int64]Status{42: Good, 43: Revoked, 44: Unknown} {
				s, err := f.Fetch(t.Context(), ca.leaf(serial, url), ca.cert)
				if err != nil {
					t.Errorf("serial %d: %v", serial, err)
					continue
				}
				if s.Status != want || s.NextUpdate.IsZero() != tt.open || Usable(s, time.Now()) != (want == Good) {
					t.Errorf("serial %d: got %v until %v", serial, s.Status, s.NextUpdate)
				}
				if want == Revoked && (s.Reason != ocsp.KeyCompromise || !s.RevokedAt.Equal(now.Add(-time.Hour))) {
					t.Errorf("revoked at %v for reason %d", s.RevokedAt, s.Reason)
				}
			}
		})
	}
}

// What Parse accepts is stapled to clients of other make: openssl has to accept
// it too, and to refuse what Parse refuses.
func TestOpenSSLAgreesWithParse(t *testing.T) {
	openssl := opensslPath(t)
	ca := newFakeCA(t, time.Now())
	leaf := ca.leaf(42)
	files := pemFiles{t, t.TempDir()}
	caFile, leafFile := files.cert("ca.pem", ca.cert), files.cert("leaf.pem", leaf)
	respond := func(edit func(*x509.Certificate)) []byte {
		cert, key := ca.delegate(edit)
		r := ca.good(leaf)
		r.Certificate = cert
		return createResponse(t, ca.cert, signer{cert, key}, r)
	}
	ended := ca.good(leaf)
	ended.ThisUpdate, ended.NextUpdate = ca.now.Add(-48*time.Hour), ca.now.Add(-24*time.Hour)
	for _, tt := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"issuer", ca.respond(ca.good(leaf)), true},
		{"delegate", respond(func(*x509.Certificate) {}), true},
		{"delegate without the EKU", respond(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), false},
		{"delegate expired", respond(func(c *x509.Certificate) { c.NotAfter = ca.now.Add(-time.Hour) }), false},
		{"another serial", ca.respond(ca.good(ca.leaf(43))), false},
		{"ended", ca.respond(ended), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.raw, leaf, ca.cert, time.Now())
			if (err == nil) != tt.ok {
				t.Errorf("Parse: %v", err)
			}
			out, err := exec.Command(openssl, "ocsp", "-respin", files.write("resp.der", tt.raw),
				"-issuer", caFile, "-cert", leafFile, "-no_nonce",
				"-CAfile", caFile, "-partial_chain").CombinedOutput()
			ok := err == nil && strings.Contains(string(out), "Response verify OK") &&
				strings.Contains(string(out), "leaf.pem: good") && !strings.Contains(string(out), "WARNING")
			if ok != tt.ok {
				t.Errorf("openssl: %v\n%s", err, out)
			}
		})
	}
}
