package acmetest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"net/netip"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/acmetest"
)

// zoneSolver answers dns-01 challenges in the CA's own DNS server.
type zoneSolver struct{ ca *acmetest.CA }

func (s zoneSolver) Present(_ context.Context, c acme.Challenge) error {
	s.ca.AddTXT(c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
	return nil
}

func (s zoneSolver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.ca.DeleteTXT(c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
	return nil
}

// A program, or a test without a *testing.T, starts a CA with New and gets a
// wildcard certificate from it.
func ExampleNew() {
	ctx := context.Background()
	ca, err := acmetest.New(acmetest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer ca.Close()

	client := acmez.Client{
		Client:           &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client(), UserAgent: "example"},
		ChallengeSolvers: map[string]acmez.Solver{acme.ChallengeTypeDNS01: zoneSolver{ca}},
	}
	accountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	account, err := client.NewAccount(ctx, acme.Account{TermsOfServiceAgreed: true, PrivateKey: accountKey})
	if err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	certs, err := client.ObtainCertificateForSANs(ctx, account, key, []string{"*.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(certs[0].ChainPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(leaf.DNSNames, ca.Orders())
	// Output: [*.example.com] 1
}

// A name can resolve to any address, here as it does behind a round-robin load
// balancer.
func ExampleCA_Rotate() {
	ca, err := acmetest.New(acmetest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer ca.Close()

	ca.Rotate("lb.example.com", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))
	for range 2 {
		addrs, err := ca.Resolver().LookupNetIP(context.Background(), "ip4", "lb.example.com")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(addrs[0])
	}
	// Output:
	// 192.0.2.1
	// 192.0.2.2
}
