package acmeflow

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestP22_ChainShapes(t *testing.T) {
	block := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	type chain = func(leaf, inter, root *x509.Certificate) []byte
	for name, f := range map[string]chain{
		"CRLF": func(l, i, _ *x509.Certificate) []byte {
			return bytes.ReplaceAll(append(block(l), block(i)...), []byte("\n"), []byte("\r\n"))
		},
		"comments": func(l, i, _ *x509.Certificate) []byte {
			return bytes.Join([][]byte{[]byte("subject=x\n"), block(l), []byte("\n\n# more\n"), block(i)}, nil)
		},
		"root too": func(l, i, r *x509.Certificate) []byte {
			return bytes.Join([][]byte{block(l), block(i), block(r), block(r)}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Chain: f, Alternates: 2})
				e.issue(t, "example.com")
				e.wantCount(t, "cert", 1)
			})
		})
	}
}

// A link that leads back to the same certificate is not followed.
func TestP22_UpLinkOfCertificate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "cert", Header: map[string][]string{"Link": {`<https://ca.test/cert/1>;rel="up"`}}})
		e.issue(t, "example.com")
		e.wantCount(t, "cert", 1)
	})
}

func TestP22_NotAChain(t *testing.T) {
	other, err := certpem.GenerateKey(certpem.P256)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{
		"HTML": []byte("<html>sorry</html>"), "empty": {}, "JSON": []byte("{}"),
		"cut":  []byte("-----BEGIN CERTIFICATE-----\nMIIB"),
		"junk": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "cert", Body: body})
				if err := e.fail(t, "example.com"); err.Step != StepDownload {
					t.Errorf("error: %v", err)
				}
			})
		})
	}
	t.Run("another key", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			e.issue(t, "example.com")
			req := e.request(t, "example.com") // its state names the valid order
			req.CSR = csr(t, other, "example.com")
			if err := e.failRequest(t, req); !err.Gone || !err.Again {
				t.Errorf("the certificate of the old order was taken for another key: %v", err)
			}
		})
	})
}
