package main

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/storage"
)

// ours is certwright, by its public API, with nobody listening but itself.
type ours struct {
	m   *certwright.Manager
	dns bool // all names in one certificate
}

func openCertwright(s settings) (column, error) {
	solvers := map[string]certwright.Solver{}
	if s.dns != nil {
		solvers["dns-01"] = &dnsprovider.Solver{Provider: s.dns.provider(), Resolvers: []string{s.dns.at}}
	}
	m, err := certwright.New(certwright.Config{
		AgreeToTerms: true,
		Issuers: []certwright.Issuer{&certwright.ACME{
			Directory:        s.ca.Directory(),
			HTTPClient:       s.ca.Client(),
			DisableHTTP01:    s.challenge != "http-01",
			DisableTLSALPN01: s.challenge != "tls-alpn-01",
			Solvers:          solvers,
		}},
		Storage:    storage.NewMemory(),
		Workers:    s.inFlight,
		HTTPPort:   s.ca.HTTPPort(),
		TLSPort:    s.ca.TLSPort(),
		ListenHost: host,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return ours{m, s.dns != nil}, nil
}

func (ours) enter() error { return nil }
func (ours) leave() error { return nil }

func (o ours) issue(ctx context.Context, names []string) error {
	if o.dns {
		return o.m.Manage(ctx, certwright.Spec{Names: names})
	}
	return o.m.ManageSync(ctx, names)
}

func (o ours) close() error { return o.m.Close(context.Background()) }

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }
