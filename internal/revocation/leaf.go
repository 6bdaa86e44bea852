package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"net/url"
	"slices"
)

// statusRequest is the TLS extension that a must-staple leaf demands of a server
// (RFC 6066 §8).
const statusRequest = 5

// Supported reports whether leaf names an OCSP responder that can be asked over
// HTTP. That most leaves name none is normal and nothing to warn of. It is false
// for nil.
func Supported(leaf *x509.Certificate) bool {
	return len(responders(leaf)) > 0
}

// MustStaple reports whether leaf carries the TLS feature extension of RFC 7633
// with status_request in it: clients may refuse it without a staple. It is false
// for nil and for an extension that cannot be read.
func MustStaple(leaf *x509.Certificate) bool {
	if leaf == nil {
		return false
	}
	for _, ext := range leaf.Extensions {
		if !isTLSFeature(ext.Id) {
			continue
		}
		var features []int
		rest, err := asn1.Unmarshal(ext.Value, &features)
		if err == nil && len(rest) == 0 && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}

// isTLSFeature reports whether id is id-pe-tlsfeature (RFC 7633 §6).
func isTLSFeature(id asn1.ObjectIdentifier) bool {
	return id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24})
}

// responders returns the HTTP responders of leaf in the leaf's order, each once.
func responders(leaf *x509.Certificate) []string {
	if leaf == nil {
		return nil
	}
	var urls []string
	for _, s := range leaf.OCSPServer {
		if isHTTP(s) && !slices.Contains(urls, s) {
			urls = append(urls, s)
		}
	}
	return urls
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
