package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/certwright/certwright/internal/bind"
)

// over has what follows answer dns-01 by a zone, until back is called.
func (b *bench) over(z *zone) (back func()) {
	before := b.set
	b.set.challenge, b.set.dns = "dns-01", z
	return func() { b.set = before }
}

// hundred is how many names one order has.
func hundred() int {
	if *quick {
		return 10
	}
	return 100
}

// wildcard measures a certificate for a wildcard, until its record is deleted, for
// a client that has an account. The record is written into BIND by dynamic updates.
func (b *bench) wildcard(ctx context.Context) error {
	z := newZone(b.set.ca)
	end, err := z.useBIND()
	switch {
	case errors.Is(err, bind.ErrNone):
		fmt.Fprintf(os.Stderr, "dns-wildcard is measured with the CA's own DNS server: %v\n", err)
	case err != nil:
		return fmt.Errorf("starting BIND: %w", err)
	default:
		defer end()
	}
	defer b.over(z)()
	got, err := b.warmRounds(ctx, 30, "*.")
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if len(got[k.name]) > 0 {
			print("dns-wildcard", k.name, median(got[k.name], func(m measured) float64 { return m.ms }), "ms")
			print("dns-wildcard-requests", k.name, median(got[k.name], func(m measured) float64 { return m.requests }), "requests")
		}
	}
	return nil
}

// delayed measures an order of 100 names whose records are shown two seconds after
// they are written.
func (b *bench) delayed(ctx context.Context) error {
	z := newZone(b.set.ca)
	z.delay = 2 * time.Second
	defer b.over(z)()
	got, err := b.coldRounds(ctx, 3, hundred())
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if len(got[k.name]) > 0 {
			print("dns-100", k.name, median(got[k.name], func(m measured) float64 { return m.ms }), "ms")
		}
	}
	return nil
}

// paced measures an order of 100 names with a provider that carries out 5 calls a
// second. The limit is the time that certwright's calls take.
func (b *bench) paced(ctx context.Context) error {
	z := newZone(b.set.ca)
	z.pace = 200 * time.Millisecond
	defer b.over(z)()
	for _, k := range kinds {
		if k.name == "limit" || !k.dns || rounds(k.slow, 1) == 0 {
			continue
		}
		c, err := k.open(b.set)
		if err != nil {
			return err
		}
		m, err := b.one(ctx, c, b.fresh(hundred()))
		if err := c.close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		print("dns-100-5rps", k.name, m.ms, "ms")
		print("dns-100-5rps-calls", k.name, m.calls, "calls")
		if k.name == "certwright" {
			print("dns-100-5rps", "limit", m.calls*float64(z.pace.Milliseconds()), "ms")
		}
	}
	return nil
}
