package certwright_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// quickSigner is an Issuer that signs at once, for tests with many certificates.
type quickSigner struct {
	ca   *fakeca.CA
	life time.Duration
	ocsp string // responder

	mu     sync.Mutex // guards the fields below
	issued []time.Time
	busy   int
	most   int
	window func(*x509.Certificate) (start, end time.Time)
}

func (*quickSigner) ID() string { return "signer" }

func (f *quickSigner) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	f.mu.Lock()
	f.issued = append(f.issued, time.Now())
	f.busy++
	f.most = max(f.most, f.busy)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
	}()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return Issued{}, ctx.Err()
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return Issued{}, err
	}
	issuer, key := f.ca.Intermediate()
	leaf := leafTemplate("")
	leaf.DNSNames, leaf.NotAfter = csr.DNSNames, leaf.NotBefore.Add(f.life)
	if f.ocsp != "" {
		leaf.OCSPServer = []string{f.ocsp}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, csr.PublicKey, key)
	if err != nil {
		return Issued{}, err
	}
	var chain []byte
	for _, c := range [][]byte{der, issuer.Raw} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return Issued{Chain: chain}, nil
}

func (f *quickSigner) RenewalInfo(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	f.mu.Lock()
	window := f.window
	f.mu.Unlock()
	if window == nil {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	start, end := window(leaf)
	return RenewalInfo{Start: start, End: end}, nil
}
