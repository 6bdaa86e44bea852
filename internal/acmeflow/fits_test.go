package acmeflow

import (
	"bytes"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestTidyChain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		whole := e.issue(t, "example.com").ChainPEM
		cut := len(whole) - 100
		other, err := certpem.GenerateKey(certpem.P256)
		if err != nil {
			t.Fatal(err)
		}
		keyPEM, err := certpem.EncodeKey(other)
		if err != nil {
			t.Fatal(err)
		}
		end := bytes.Index(whole, []byte("-----END")) // of the leaf
		for _, c := range []struct {
			name string
			text []byte
			tidy int // certificates
			fits bool
		}{
			{"whole", whole, 2, true},
			{"CRLF", bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n")), 2, true},
			{"leaf twice", append(bytes.Clone(whole[:bytes.Index(whole[end:], []byte("\n"))+end+1]), whole...), 3, true},
			{"the second is cut short", whole[:cut], 0, false},
			{"the first is damaged", bytes.Replace(whole, []byte("\nMII"), []byte("\n*II"), 1), 0, false},
			{"text behind it", append(bytes.Clone(whole), "more\n"...), 0, true},
			{"another block", append(bytes.Clone(whole), keyPEM...), 0, true},
			{"empty", nil, 0, false},
		} {
			if got := len(tidyChain(c.text)); got != c.tidy {
				t.Errorf("%s: %d certificates, want %d", c.name, got, c.tidy)
			}
			r := &run{req: e.request(t, "example.com")}
			if err := r.fits(c.text); (err == nil) != c.fits {
				t.Errorf("%s: fits: %v", c.name, err)
			}
			r.req.CSR = csr(t, other, "example.com")
			if r.fits(c.text) == nil {
				t.Errorf("%s: fits another key", c.name)
			}
		}
	})
}
