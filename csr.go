package certwright

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"

	"github.com/certwright/certwright/internal/hostname"
)

// oidTLSFeature is id-pe-tlsfeature (RFC 7633).
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

func makeCSR(names []string, key crypto.Signer, mustStaple bool) ([]byte, error) {
	t := &x509.CertificateRequest{}
	for _, n := range names {
		if hostname.IsIP(n) {
			t.IPAddresses = append(t.IPAddresses, net.ParseIP(n))
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	if mustStaple {
		value, err := asn1.Marshal([]int{5}) // status_request (RFC 6066 §8)
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidTLSFeature, Value: value})
	}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}
