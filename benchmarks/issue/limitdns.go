package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/internal/dnsprobe"
)

// What the limit does at once for dns-01: as much as certwright.
const (
	validations = 10
	writes      = 4
	firstLook   = 500 * time.Millisecond // the pause after it; each further one is twice as long
)

// txt is a record for a challenge, and where it was written.
type txt struct {
	authz  acme.Authorization
	ch     acme.Challenge
	zone   string
	record []libdns.Record
}

// solveDNS brings authorizations to valid: all records are written, then each is
// waited for, and its authorization validated as soon as it is there. The result
// deletes the records beside what the caller does next, and is to be waited for.
func (l *limit) solveDNS(ctx context.Context, urls []string) (*errgroup.Group, error) {
	probe := dnsprobe.New(dnsprobe.Options{Resolvers: []string{l.set.dns.at}})
	writing, validating := make(chan struct{}, writes), make(chan struct{}, validations)
	deleting := new(errgroup.Group)
	records := make([]txt, len(urls))
	preparing, ctx2 := errgroup.WithContext(ctx)
	preparing.SetLimit(validations)
	for i, u := range urls {
		preparing.Go(func() (err error) {
			records[i], err = l.writeDNS(ctx2, probe, u, writing)
			return err
		})
	}
	if err := preparing.Wait(); err != nil {
		return deleting, err
	}
	solving, ctx := errgroup.WithContext(ctx)
	for _, t := range records {
		solving.Go(func() error {
			if err := t.seen(ctx, probe); err != nil {
				return err
			}
			validating <- struct{}{}
			defer func() { <-validating }()
			if _, err := l.client.InitiateChallenge(ctx, l.account, t.ch); err != nil {
				return err
			}
			if _, err := l.client.PollAuthorization(ctx, l.account, t.authz); err != nil {
				return err
			}
			deleting.Go(func() error {
				writing <- struct{}{}
				defer func() { <-writing }()
				_, err := l.set.dns.DeleteRecords(context.WithoutCancel(ctx), t.zone, t.record)
				return err
			})
			return nil
		})
	}
	return deleting, solving.Wait()
}

// writeDNS looks up where the record of an authorization belongs and what is there
// already, and writes it.
func (l *limit) writeDNS(ctx context.Context, probe *dnsprobe.Prober, u string, slots chan struct{}) (t txt, err error) {
	if t.authz, err = l.client.GetAuthorization(ctx, l.account, u); err != nil {
		return t, err
	}
	i := slices.IndexFunc(t.authz.Challenges, func(ch acme.Challenge) bool { return ch.Type == acme.ChallengeTypeDNS01 })
	if i < 0 {
		return t, errors.New("the CA offers no dns-01")
	}
	t.ch = t.authz.Challenges[i]
	path, err := probe.Follow(ctx, t.ch.DNS01TXTRecordName())
	if err != nil {
		return t, err
	}
	zone, err := probe.Zone(ctx, path[len(path)-1])
	if err != nil {
		return t, err
	}
	t.zone = zone + "."
	name := libdns.RelativeName(path[len(path)-1]+".", t.zone)
	slots <- struct{}{}
	defer func() { <-slots }()
	if z, ok := l.set.dns.provider().(libdns.RecordGetter); ok {
		if _, err := z.GetRecords(ctx, t.zone); err != nil {
			return t, err
		}
	}
	t.record, err = l.set.dns.AppendRecords(ctx, t.zone, []libdns.Record{libdns.TXT{Name: name, TTL: 2 * time.Minute, Text: t.ch.DNS01KeyAuthorization()}})
	return t, err
}

// seen waits until the record is shown. It looks as seldom as is fair to servers.
func (t txt) seen(ctx context.Context, probe *dnsprobe.Prober) error {
	for pause := firstLook; ; pause *= 2 {
		answers, err := probe.Look(ctx, t.zone, t.ch.DNS01TXTRecordName())
		if err != nil {
			return err
		}
		if slices.Contains(answers[0].Values, t.ch.DNS01KeyAuthorization()) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("waiting for a record: %w", ctx.Err())
		}
	}
}
