package dnsprovider_test

import (
	"context"
	"log"
	"os"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/cloudflare"
)

// A wildcard from Let's Encrypt, for a zone at Cloudflare.
func Example() {
	provider, err := cloudflare.New(cloudflare.Config{APIToken: os.Getenv("CLOUDFLARE_API_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	m, err := certwright.New(certwright.Config{
		Email: "admin@example.com", AgreeToTerms: true,
		Issuers: []certwright.Issuer{&certwright.ACME{Solvers: map[string]certwright.Solver{
			"dns-01": &dnsprovider.Solver{Provider: provider},
		}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := m.ManageSync(ctx, []string{"example.com", "*.example.com"}); err != nil {
		log.Print(err)
	}
	if err := m.Close(ctx); err != nil {
		log.Print(err)
	}
}
