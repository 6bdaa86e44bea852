package acmeflow

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestFindLeaf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		whole := e.issue(t, "example.com").ChainPEM
		other, err := certpem.GenerateKey(certpem.P256)
		if err != nil {
			t.Fatal(err)
		}
		keyPEM, err := certpem.EncodeKey(other)
		if err != nil {
			t.Fatal(err)
		}
		stray := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		end := bytes.Index(whole, []byte("-----END")) // of the leaf
		leaf := whole[:bytes.Index(whole[end:], []byte("\n"))+end+1]
		for _, c := range []struct {
			name        string
			text        []byte
			fits, again bool
		}{
			{"whole", whole, true, false},
			{"CRLF", bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n")), true, false},
			{"leaf twice", append(bytes.Clone(leaf), whole...), true, false},
			{"leaf last", append(bytes.Clone(whole[len(leaf):]), leaf...), true, false},
			{"one that cannot be parsed", append(bytes.Clone(whole), stray...), true, false}, // F10
			{"text behind it", append(bytes.Clone(whole), "more\n"...), true, false},
			{"the second is cut short", whole[:len(whole)-100], false, true},
			{"the first is damaged", bytes.Replace(whole, []byte("\nMII"), []byte("\n*II"), 1), false, true},
			{"a private key", append(bytes.Clone(whole), keyPEM...), false, false}, // F31
			{"no leaf", whole[len(leaf):], false, false},
			{"empty", nil, false, true},
		} {
			for _, key := range []crypto.Signer{e.key, other} {
				req, err := x509.ParseCertificateRequest(csr(t, key, "example.com"))
				if err != nil {
					t.Fatal(err)
				}
				_, err = findLeaf(c.text, req)
				if fits := c.fits && key == e.key; (err == nil) != fits {
					t.Errorf("%s: %v", c.name, err)
				}
				if key == e.key && errors.Is(err, errNoChain) != c.again {
					t.Errorf("%s: it is asked for again: %v", c.name, err)
				}
			}
		}
	})
}
