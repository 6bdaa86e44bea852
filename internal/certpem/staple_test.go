package certpem

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

func TestResponders(t *testing.T) {
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
		want bool
	}{
		{"none", &x509.Certificate{}, false},
		{"http", &x509.Certificate{OCSPServer: []string{"http://ocsp.example"}}, true},
		{"https", &x509.Certificate{OCSPServer: []string{"https://ocsp.example/x"}}, true},
		{"ldap", &x509.Certificate{OCSPServer: []string{"ldap://ocsp.example"}}, false},
		{"second is usable", &x509.Certificate{OCSPServer: []string{"ldap://a", "http://b"}}, true},
		{"no host", &x509.Certificate{OCSPServer: []string{"http:///x", "http:", ""}}, false},
		{"not a URL", &x509.Certificate{OCSPServer: []string{"http://[", "\x00"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Responders(tt.leaf); len(got) > 0 != tt.want {
				t.Errorf("Responders = %q, want one: %v", got, tt.want)
			}
		})
	}
}

func TestMustStaple(t *testing.T) {
	feature := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	other := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 25}
	for _, tt := range []struct {
		name  string
		id    asn1.ObjectIdentifier
		value []byte
		want  bool
	}{
		{"status_request", feature, []byte{0x30, 3, 2, 1, 5}, true},
		{"among others", feature, []byte{0x30, 6, 2, 1, 17, 2, 1, 5}, true},
		{"status_request_v2 only", feature, []byte{0x30, 3, 2, 1, 17}, false},
		{"no feature", feature, []byte{0x30, 0}, false},
		{"empty", feature, nil, false},
		{"trailing data", feature, []byte{0x30, 3, 2, 1, 5, 0}, false},
		{"truncated", feature, []byte{0x30, 3, 2, 1}, false},
		{"another extension", other, []byte{0x30, 3, 2, 1, 5}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: tt.id, Value: tt.value}}}
			if got := MustStaple(leaf); got != tt.want {
				t.Errorf("MustStaple = %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzMustStaple(f *testing.F) {
	f.Add([]byte{0x30, 3, 2, 1, 5})
	f.Add([]byte{0x30, 6, 2, 1, 17, 2, 1, 5})
	f.Add([]byte{0x30, 0x80, 2, 1, 5, 0, 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		leaf := &x509.Certificate{Extensions: []pkix.Extension{{
			Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: value,
		}}}
		if MustStaple(leaf) && !bytes.Contains(value, []byte{2, 1, 5}) {
			t.Errorf("%x has no status_request", value)
		}
	})
}
