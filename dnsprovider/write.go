package dnsprovider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright"
	"github.com/libdns/libdns"
)

// A sight is what was seen at a place.
type sight struct {
	found  []found // TXT records; their records are nil where a server told of them
	filled bool    // the provider says that the zone has records
	byName bool    // the provider said it, and not the zone's servers
}

func (v sight) values() (values []string) {
	for _, f := range v.found {
		values = append(values, f.value)
	}
	return values
}

func (v sight) has(value string) bool { return slices.Contains(v.values(), value) }

// readAt looks at a place by what the provider says.
func (s *Solver) readAt(ctx context.Context, p place) (sight, error) {
	c, err := s.read(ctx, p.zone)
	if err != nil {
		return sight{}, err
	}
	return sight{found: c.txt[p.name], filled: c.records > 0, byName: true}, nil
}

// see looks at a place by what the provider says, else by what the servers show. It
// fails when neither could say.
func (s *Solver) see(ctx context.Context, p place) (sight, error) {
	v, err := s.readAt(ctx, p)
	if err == nil {
		return v, nil
	}
	if v, lookErr := s.shownAt(ctx, p); lookErr == nil {
		return v, nil
	} else {
		return sight{}, problems{err, lookErr}
	}
}

// shownAt looks at a place by what the servers show, all together.
func (s *Solver) shownAt(ctx context.Context, p place) (v sight, err error) {
	answers, err := s.dns().Look(ctx, string(p.zone), string(p.name))
	if err != nil {
		return sight{}, err
	}
	answered := false
	var failed problems
	for _, a := range answers {
		if a.Err != nil || a.Cached > 0 {
			failed.add(fmt.Errorf("%s does not answer: %w", a.Server, cmp.Or(a.Err, errCached)))
			continue
		}
		answered = true
		for _, value := range a.Values {
			if !v.has(value) {
				v.found = append(v.found, found{value: value})
			}
		}
	}
	if !answered {
		return sight{}, failed.err()
	}
	return v, nil
}

var errCached = errors.New("it says only what it was told before")

// lock waits until nobody else, in any instance, changes the TXT records of a name.
func (s *Solver) lock(ctx context.Context, ch certwright.Challenge, name fqdn) (locked context.Context, unlock func(), err error) {
	free, err := s.names.Lock(ctx, string(name))
	if err != nil {
		return nil, nil, err
	}
	if ch.Lock == nil {
		return ctx, free, nil
	}
	lease, err := ch.Lock(ctx, "txt/"+string(name))
	if err != nil {
		free()
		return nil, nil, fmt.Errorf("waiting for others who change it: %w", err)
	}
	return lease.Context(), func() {
		defer free()
		if err := lease.Unlock(context.WithoutCancel(ctx)); err != nil {
			log(ch).Warn("unlocking a name's TXT records failed", "record", name, "err", err)
		}
	}, nil
}

// write sees to it that a value that serves is at a place. sure reports whether it is
// of no use to try another one now: the zone is the provider's, or the provider said
// when to come back, or it is not known what came of the writing.
func (s *Solver) write(ctx context.Context, ch *certwright.Challenge, c candidate, serves func(string) bool) (sure bool, err error) {
	sure = c.listed
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing TXT %q in zone %q with %s: %w", c.rel, c.zone, providerName(s.Provider), err)
		}
	}()
	ctx, unlock, err := s.lock(ctx, *ch, c.name)
	if err != nil {
		return sure, err
	}
	defer unlock()
	before, err := s.readAt(ctx, c.place)
	if err != nil && ch.Type == typePersist {
		// For other types servers do not count: they may show a value for a while
		// that was deleted.
		before, err = s.shownAt(ctx, c.place)
	}
	if err != nil {
		log(*ch).Debug("what TXT records there are is not known", "record", c.name, "err", err)
	}
	sure = sure || before.filled
	known, err := s.ledger(*ch)
	if err != nil {
		return sure, err
	}
	present := slices.ContainsFunc(before.values(), serves)
	if err := s.note(ctx, ch, c.place, !present || known.added(c.place, ch.DNSValue)); err != nil {
		return true, err
	}
	if present {
		s.keep(keyOf(*ch), func(p *presentation) { p.written = true })
		return sure, nil
	}
	record, err := s.add(ctx, *ch, c.place, before, serves)
	if err != nil {
		_, later := certwright.RetryAfter(err)
		return sure || later || errors.Is(err, errNoAnswer) || ctx.Err() != nil, err
	}
	s.keep(keyOf(*ch), func(p *presentation) { p.record, p.written = record, true })
	return true, nil
}

// add appends the value of a challenge at a place, and looks whether others' values
// are still there.
func (s *Solver) add(ctx context.Context, ch certwright.Challenge, p place, before sight, serves func(string) bool) (record libdns.Record, err error) {
	ours := libdns.TXT{Name: string(p.rel), TTL: s.ttl(), Text: ch.DNSValue}
	returned, err := s.appendRecords(ctx, p, []libdns.Record{ours})
	others := s.otherRecords(p, before, ch.DNSValue)
	if err != nil {
		after, seeErr := s.see(ctx, p)
		if seeErr != nil || !slices.ContainsFunc(after.values(), serves) {
			if len(others) > 0 {
				if _, lostErr := s.restore(ctx, p, others, nil); lostErr != nil {
					err = problems{err, lostErr}
				}
			}
			return nil, err
		}
		returned = nil // it is there: "already exists"
	}
	if len(others) > 0 {
		anew, err := s.restore(ctx, p, others, &ours)
		if err != nil {
			return nil, err
		}
		if anew {
			returned = nil
		}
	}
	for _, f := range returned {
		if f.value == ch.DNSValue {
			return f.record, nil
		}
	}
	return nil, nil
}

// otherRecords are those at a place that have to stay there, by the provider's word.
func (s *Solver) otherRecords(p place, before sight, value string) (others []libdns.Record) {
	if !before.byName {
		return nil // it could not be seen whether they stay
	}
	seen := []string{value}
	for _, f := range before.found {
		if !slices.Contains(seen, f.value) {
			seen = append(seen, f.value)
			others = append(others, libdns.TXT{Name: string(p.rel), TTL: f.ttl, Text: f.value})
		}
	}
	return others
}

// restore looks whether others' records are still at a place after a change, and adds
// them again when they are not: together with ours, if it is not nil. It reports
// whether it had to. Its error says that the provider keeps but one value, or which
// values are lost.
func (s *Solver) restore(ctx context.Context, p place, others []libdns.Record, ours *libdns.TXT) (anew bool, err error) {
	after, err := s.readAt(ctx, p)
	if err != nil && pause(ctx, firstPause) == nil { // it could say before
		after, err = s.readAt(ctx, p)
	}
	if err != nil {
		return false, fmt.Errorf("whether others' values at this name are still there is not known: %w", err)
	}
	lost := missing(after, others)
	if len(lost) == 0 {
		return false, nil
	}
	s.rewritten(p)
	all := slices.Clone(others)
	if ours != nil {
		all = append(all, *ours)
	}
	for _, v := range s.lately(p) { // a list may lack them
		if !slices.ContainsFunc(all, func(r libdns.Record) bool { return r.RR().Data == v }) {
			all = append(all, libdns.TXT{Name: string(p.rel), TTL: s.ttl(), Text: v})
		}
	}
	_, appendErr := s.appendRecords(ctx, p, all)
	if lost, err = s.missingAfter(ctx, p, all); err == nil && len(lost) == 0 {
		return true, nil
	}
	if ours == nil {
		return true, lostError(lost, appendErr, err)
	}
	failed := problems{errors.New("the provider keeps only one value a name, and there are others at this one: use another name for each, by Target, or one certificate after the other")}
	if appendErr != nil {
		failed.add(appendErr)
	}
	_, appendErr = s.appendRecords(ctx, p, others) // theirs were first
	if lost, err = s.missingAfter(ctx, p, others); err != nil || len(lost) > 0 {
		failed.add(lostError(lost, appendErr, err))
	}
	return true, failed.err()
}

// missingAfter are those of some records that are not at a place after they were
// written: it is looked a few times.
func (s *Solver) missingAfter(ctx context.Context, p place, records []libdns.Record) ([]libdns.Record, error) {
	for i, wait := 0, time.Duration(0); ; i, wait = i+1, max(firstPause, 2*wait) {
		if err := pause(ctx, wait); err != nil {
			return records, err
		}
		after, err := s.readAt(ctx, p)
		if err != nil {
			return records, err
		}
		if lost := missing(after, records); len(lost) == 0 || i == quickLooks-1 {
			return lost, nil
		}
	}
}

func missing(v sight, records []libdns.Record) (lost []libdns.Record) {
	for _, r := range records {
		if !v.has(r.RR().Data) {
			lost = append(lost, r)
		}
	}
	return lost
}

func lostError(lost []libdns.Record, causes ...error) error {
	values := make([]string, len(lost))
	for i, r := range lost {
		values[i] = fmt.Sprintf("%q", clip(r.RR().Data))
	}
	failed := problems{fmt.Errorf("the provider has removed values of others at this name, and they could not be written again; write them by hand: %s", strings.Join(values, ", "))}
	for _, cause := range causes {
		if cause != nil {
			failed.add(cause)
		}
	}
	return failed.err()
}

// appendRecords appends records at a place and returns what the provider returned.
func (s *Solver) appendRecords(ctx context.Context, p place, records []libdns.Record) ([]found, error) {
	return do(ctx, &s.calls, writing(p), callLimit, func(ctx context.Context) ([]found, error) {
		returned, err := s.Provider.AppendRecords(ctx, p.zone.dotted(), records)
		if err != nil {
			return nil, err
		}
		return p.among(returned), nil
	})
}

// writing is what a call does that appends records at a place.
func writing(p place) string { return fmt.Sprintf("writing TXT %q in zone %q", p.rel, p.zone) }

// among are the TXT records at a place.
func (p place) among(records []libdns.Record) (there []found) {
	for _, rec := range records {
		if name, f, ok := p.zone.txt(rec); ok && name == p.name {
			there = append(there, f)
		}
	}
	return there
}
