package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright"
	"github.com/libdns/libdns"
)

const (
	// publishTime is after how long a record that servers do not show counts as
	// one that is not there, and not as one that they do not show yet.
	publishTime = 10 * time.Minute

	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
	quickLooks = 3 // how often is looked whether a delete has had its effect, before another way is tried: 1.5 s
	allLooks   = 8 // how often after the last way: 36 s
)

// CleanUp deletes what Present added, by what was saved then: nothing is searched
// for anew. It leaves what others have at the name, what was there already, and
// records of dns-persist-01. nil means that the record is gone, as far as the
// provider or the zone's servers can say.
func (s *Solver) CleanUp(ctx context.Context, ch certwright.Challenge) error {
	if ch.Type == typePersist {
		s.forget(keyOf(ch))
		return nil
	}
	l, err := s.ledger(ch)
	if err != nil {
		if p, lookErr := s.shown(ctx, plain(ch.DNSName)); lookErr == nil {
			if v, lookErr := s.shownAt(ctx, p); lookErr == nil && !v.has(ch.DNSValue) {
				return nil
			}
		}
		return fmt.Errorf("%w; delete the TXT record %q with the value %q by hand", err, ch.DNSName, clip(ch.DNSValue))
	}
	var failed problems
	for _, e := range slices.Backward(l) {
		if !e.Added || e.Failed && !l[len(l)-1].Failed {
			continue // it was there before; or another zone was the right one
		}
		if err := s.remove(ctx, ch, e); err != nil && !(e.Failed && s.unseen(ctx, e)) {
			failed.add(fmt.Errorf("deleting TXT %q in zone %q with %s: %w", e.place().rel, e.Zone, providerName(s.Provider), err))
		}
	}
	if len(failed) > 0 {
		return failed.err()
	}
	s.forget(keyOf(ch))
	return nil
}

// remove deletes a value at the place where it was added.
func (s *Solver) remove(ctx context.Context, ch certwright.Challenge, e entry) error {
	p := e.place()
	ctx, unlock, err := s.lock(ctx, ch, p.name)
	if err != nil {
		return err
	}
	defer unlock()
	if isNil(s.Provider) {
		return s.goneAnyway(ctx, e, errors.New("there is no Provider any more; delete it by hand"))
	}
	if !s.calls.returned(ctx, writing(p)) { // under the lock nobody waits for one
		return errors.New("a call that writes it has not returned yet")
	}
	before, readErr := s.readAt(ctx, p)
	if readErr == nil && !before.has(e.Value) && !s.wrote(keyOf(ch), p) && !s.showAt(ctx, p, e.Value) {
		return nil
	}
	others := s.otherRecords(p, before, e.Value)
	s.withdraw(keyOf(ch))
	err = s.deleteValue(ctx, p, e, s.recordsFor(keyOf(ch), e, before))
	if len(others) > 0 {
		if _, lostErr := s.restore(ctx, p, others, nil); lostErr != nil {
			failed := problems{lostErr}
			if err != nil {
				failed = problems{err, lostErr}
			}
			return failed.err()
		}
	}
	return err
}

// recordsFor are the records to delete a value by, the best first: what the provider
// shows, else what AppendRecords returned, else what was written.
// Its TTL may not be what was written, if the provider has bounds: 0 is any.
func (s *Solver) recordsFor(k key, e entry, before sight) []libdns.Record {
	p := e.place()
	best := s.kept(k, p)
	for _, f := range before.found {
		if f.value == e.Value {
			best = f.record // others may have written it anew
		}
	}
	if best == nil {
		best = libdns.TXT{Name: string(p.rel), TTL: time.Duration(e.TTL) * time.Second, Text: e.Value}
	}
	return []libdns.Record{best, libdns.TXT{Name: string(p.rel), Text: e.Value}}
}

// deleteValue deletes by one record after the other until the value is gone.
func (s *Solver) deleteValue(ctx context.Context, p place, e entry, records []libdns.Record) (err error) {
	for i, rec := range records {
		var returned []found
		returned, err = s.deleteRecord(ctx, p, rec)
		if err == nil && slices.ContainsFunc(returned, func(f found) bool { return f.value == e.Value }) {
			return nil
		}
		if err != nil {
			return s.goneAnyway(ctx, e, err)
		}
		looks := quickLooks
		if i == len(records)-1 {
			looks = allLooks
		}
		if err = s.seeGone(ctx, p, e.Value, looks); !errors.Is(err, errStillThere) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (s *Solver) deleteRecord(ctx context.Context, p place, rec libdns.Record) ([]found, error) {
	what := fmt.Sprintf("deleting TXT %q in zone %q", p.rel, p.zone)
	return do(ctx, &s.calls, what, callLimit, func(ctx context.Context) ([]found, error) {
		returned, err := s.Provider.DeleteRecords(ctx, p.zone.dotted(), []libdns.Record{rec})
		if err != nil {
			return nil, err
		}
		return p.among(returned), nil
	})
}

var errStillThere = errors.New("the provider reported no error, but the record is still there")

// seeGone looks a number of times whether a value is gone: the provider's nil does
// not say it. The error says why it is not known to be.
func (s *Solver) seeGone(ctx context.Context, p place, value string, looks int) error {
	for wait := time.Duration(0); looks > 0; looks-- {
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("%w: %w", errStillThere, err)
		}
		v, err := s.see(ctx, p)
		if err != nil {
			return fmt.Errorf("the provider reported neither an error nor what it deleted, and whether the record is gone cannot be seen: %w", err)
		}
		if !v.has(value) {
			return nil
		}
		wait = min(max(firstPause, 2*wait), maxPause)
	}
	return errStillThere
}

// goneAnyway returns nil if a value that could not be deleted is not there, else why
// it could not. That servers do not show it counts only after a time in which they
// would have begun to.
func (s *Solver) goneAnyway(ctx context.Context, e entry, why error) error {
	p := e.place()
	if !isNil(s.Provider) {
		if v, err := s.readAt(ctx, p); err == nil {
			if v.has(e.Value) || s.showAt(ctx, p, e.Value) {
				return why
			}
			return nil
		}
	}
	if e.age() < publishTime {
		return why
	}
	if v, err := s.see(ctx, p); err != nil || v.has(e.Value) {
		return why
	}
	return nil
}

// showAt reports whether servers show a value. What the provider lists may be cut at
// a page, or late.
func (s *Solver) showAt(ctx context.Context, p place, value string) bool {
	v, err := s.shownAt(ctx, p)
	return err == nil && v.has(value)
}

// unseen reports whether nobody says that a value is there.
func (s *Solver) unseen(ctx context.Context, e entry) bool {
	v, err := s.see(ctx, e.place())
	return ctx.Err() == nil && (err != nil || !v.has(e.Value))
}

// pause waits between two looks.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
