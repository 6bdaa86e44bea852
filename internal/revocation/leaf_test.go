package revocation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
)

func TestA13_SupportedNeedsAResponder(t *testing.T) {
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
		want bool
	}{
		{"nil", nil, false},
		{"none", &x509.Certificate{}, false},
		{"http", &x509.Certificate{OCSPServer: []string{"http://ocsp.example"}}, true},
		{"https", &x509.Certificate{OCSPServer: []string{"https://ocsp.example/x"}}, true},
		{"ldap", &x509.Certificate{OCSPServer: []string{"ldap://ocsp.example"}}, false},
		{"second is usable", &x509.Certificate{OCSPServer: []string{"ldap://a", "http://b"}}, true},
		{"no host", &x509.Certificate{OCSPServer: []string{"http:///x", "http:", ""}}, false},
		{"not a URL", &x509.Certificate{OCSPServer: []string{"http://[", "\x00"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Supported(tt.leaf); got != tt.want {
				t.Errorf("Supported = %v, want %v", got, tt.want)
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
	if MustStaple(nil) {
		t.Error("MustStaple(nil) = true")
	}
}

func TestMustStapleOfAParsedLeaf(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	template := ca.template(9, "leaf")
	template.ExtraExtensions = []pkix.Extension{{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5},
	}}
	if !MustStaple(ca.sign(template, ca.cert, newKey(t))) {
		t.Error("must-staple leaf not seen as one")
	}
	if MustStaple(ca.leaf(10)) {
		t.Error("plain leaf seen as must-staple")
	}
}
