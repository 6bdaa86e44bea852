package certpem

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"slices"
)

// statusRequest is the TLS feature that asks for a staple (RFC 6066 §8).
const statusRequest = 5

// tlsFeature is id-pe-tlsfeature (RFC 7633 §6).
func tlsFeature() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24} }

// MustStapleExtension returns what asks a CA for a leaf of which MustStaple is true.
func MustStapleExtension() (pkix.Extension, error) {
	value, err := asn1.Marshal([]int{statusRequest})
	return pkix.Extension{Id: tlsFeature(), Value: value}, err
}

// MustStaple reports whether leaf carries the TLS feature extension of RFC 7633
// with status_request (RFC 6066 §8) in it: clients may refuse it without a
// staple. An extension that cannot be read does not count.
func MustStaple(leaf *x509.Certificate) bool {
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(tlsFeature()) {
			continue
		}
		var features []int
		if rest, err := asn1.Unmarshal(ext.Value, &features); err == nil && len(rest) == 0 && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}

// Responders returns the OCSP responders of leaf that can be asked over HTTP, in
// the leaf's order, each once. That most leaves name none is nothing to warn of.
func Responders(leaf *x509.Certificate) []string {
	var urls []string
	for _, s := range leaf.OCSPServer {
		u, err := url.Parse(s)
		if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !slices.Contains(urls, s) {
			urls = append(urls, s)
		}
	}
	return urls
}
