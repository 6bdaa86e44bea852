package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libdns/libdns"

	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/rfc2136"
	"github.com/certwright/certwright/internal/bind"
)

// zone is a libdns provider whose records the CA's DNS server shows.
type zone struct {
	ca    *testCA
	at    string               // host:port of the server that shows it to who looks
	via   dnsprovider.Provider // writes at that server; nil: it is the CA's
	delay time.Duration        // from when a record is written until it is shown
	pace  time.Duration        // between the beginnings of two calls; 0: none

	mu      sync.Mutex // guards the fields below
	records []libdns.TXT
	changed *sync.Cond // a record was deleted
	calls   int
	next    time.Time // when the next call may begin
}

func newZone(ca *testCA) *zone {
	z := &zone{ca: ca, at: ca.DNSAddr()}
	z.changed = sync.NewCond(&z.mu)
	return z
}

// useBIND has BIND serve the zone of all names until end is called. What is written
// there is copied to the CA's DNS server, by which the CA validates.
func (z *zone) useBIND() (end func(), err error) {
	dir, err := os.MkdirTemp("", "bench-bind")
	if err != nil {
		return nil, err
	}
	server, err := bind.New(dir, bind.Options{Zones: []string{namesZone}})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	end = func() {
		server.Close()
		_ = os.RemoveAll(dir)
	}
	z.at = server.Addr
	if z.via, err = rfc2136.New(rfc2136.Config{Server: server.Addr, KeyName: bind.KeyName, Secret: bind.Secret}); err != nil {
		end()
	}
	return end, err
}

// provider is what a library is given: it tells what there is, as most can, if the
// server is the CA's.
func (z *zone) provider() dnsprovider.Provider {
	if z.via != nil {
		return z
	}
	return readable{z}
}

type readable struct{ *zone }

// turn counts a call and waits until it may begin.
func (z *zone) turn(ctx context.Context) error {
	z.mu.Lock()
	z.calls++
	at := time.Now()
	if z.next.After(at) {
		at = z.next
	}
	z.next = at.Add(z.pace)
	z.mu.Unlock()
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GetRecords implements libdns.RecordGetter.
func (z readable) GetRecords(ctx context.Context, _ string) (list []libdns.Record, err error) {
	if err := z.turn(ctx); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range z.records {
		list = append(list, r)
	}
	return list, nil
}

// AppendRecords implements libdns.RecordAppender.
func (z *zone) AppendRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	if z.via != nil {
		if _, err := z.via.AppendRecords(ctx, zone, list); err != nil {
			return nil, err
		}
	}
	return z.change(ctx, list, func(r libdns.TXT) {
		z.records = append(z.records, r)
		show := func() { z.ca.AddTXT(libdns.AbsoluteName(r.Name, zone), r.Text) }
		if z.delay == 0 {
			show()
			return
		}
		time.AfterFunc(z.delay, show)
	})
}

// DeleteRecords implements libdns.RecordDeleter.
func (z *zone) DeleteRecords(ctx context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	if z.via != nil {
		if _, err := z.via.DeleteRecords(ctx, zone, list); err != nil {
			return nil, err
		}
	}
	return z.change(ctx, list, func(r libdns.TXT) {
		z.records = slices.DeleteFunc(z.records, func(have libdns.TXT) bool { return have.Name == r.Name && have.Text == r.Text })
		z.ca.DeleteTXT(libdns.AbsoluteName(r.Name, zone), r.Text)
		z.changed.Broadcast()
	})
}

func (z *zone) change(ctx context.Context, list []libdns.Record, f func(libdns.TXT)) (changed []libdns.Record, err error) {
	if err := z.turn(ctx); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range list {
		rr := r.RR()
		if rr.Type != "TXT" {
			return changed, fmt.Errorf("the record is a %s, not a TXT", rr.Type)
		}
		t := libdns.TXT{Name: rr.Name, TTL: rr.TTL, Text: rr.Data}
		f(t)
		changed = append(changed, t)
	}
	return changed, nil
}

// count returns how many calls there were: none without a zone.
func (z *zone) count() int {
	if z == nil {
		return 0
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.calls
}

// empty waits until all records are deleted. There are none without a zone.
func (z *zone) empty(ctx context.Context) error {
	if z == nil {
		return nil
	}
	defer context.AfterFunc(ctx, z.changed.Broadcast)()
	z.mu.Lock()
	defer z.mu.Unlock()
	for len(z.records) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("waiting until %d records are deleted: %w", len(z.records), ctx.Err())
		}
		z.changed.Wait()
	}
	return nil
}
