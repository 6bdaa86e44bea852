package dnsprovider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright"
	"github.com/libdns/libdns"
)

// An entry says that a value was added, or was about to be, or was there already.
type entry struct {
	Zone  zone   `json:"zone"`
	Name  fqdn   `json:"name"`
	Value string `json:"value"`
	TTL   int64  `json:"ttl"`   // seconds
	Added bool   `json:"added"` // by this challenge, or it was about to be
	At    int64  `json:"at"`    // Unix seconds

	// Failed: the provider refused it, and the zone may be none of the provider's.
	Failed bool `json:"failed,omitempty"`
}

// age is how long ago it was written.
func (e entry) age() time.Duration { return time.Since(time.Unix(e.At, 0)) }

// A ledger is what a challenge keeps in its State: an entry for each place that was
// written to or tried. The last one is where the value is.
type ledger []entry

func parseLedger(state []byte) (l ledger, err error) {
	if len(state) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(state, &l); err != nil {
		return nil, fmt.Errorf("reading the state of the challenge: %w", err)
	}
	for _, e := range l {
		if _, ok := at(e.Zone, e.Name); !ok || e.Value == "" {
			return nil, fmt.Errorf("reading the state of the challenge: it has a value %q for %q in zone %q", clip(e.Value), clip(string(e.Name)), clip(string(e.Zone)))
		}
	}
	return l, nil
}

func (e entry) place() place {
	p, _ := at(e.Zone, e.Name) // parseLedger and note have seen to it that it is in there
	return p
}

// added reports whether l says that the challenge itself added the value there.
func (l ledger) added(p place, value string) bool {
	for _, e := range l {
		if e.Added && e.Zone == p.zone && e.Name == p.name && e.Value == value {
			return true
		}
	}
	return false
}

// with is l with e as its last entry.
func (l ledger) with(e entry) ledger {
	var out ledger
	for _, old := range l {
		if old.Zone != e.Zone || old.Name != e.Name || old.Value != e.Value {
			out = append(out, old)
		}
	}
	return append(out, e)
}

// A key tells challenges apart.
type key struct{ typ, name, value string }

func keyOf(ch certwright.Challenge) key { return key{ch.Type, ch.DNSName, ch.DNSValue} }

// A presentation is what is known of a challenge, from Present to CleanUp, while the
// process lives.
type presentation struct {
	ledger  ledger
	written bool          // its last entry's value was there after Present
	record  libdns.Record // what AppendRecords returned; nil: not known
}

func (p presentation) last() entry { return p.ledger[len(p.ledger)-1] }

// isAt reports whether a place is the one that was written to last.
func (p presentation) isAt(pl place) bool { return len(p.ledger) > 0 && p.last().place() == pl }

// live is what is known of a challenge that this process has presented.
func (s *Solver) live(ch certwright.Challenge) presentation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.presents[keyOf(ch)]
}

// ledger is what was saved of a challenge, else what this process knows.
func (s *Solver) ledger(ch certwright.Challenge) (ledger, error) {
	saved, err := parseLedger(ch.State)
	if live := s.live(ch).ledger; live != nil && (saved == nil || err != nil) {
		return live, nil
	}
	return saved, err
}

// note makes durable, and remembers, that the value of a challenge is or will be at a
// place.
func (s *Solver) note(ctx context.Context, ch *certwright.Challenge, p place, added bool) error {
	l, err := s.ledger(*ch)
	if err != nil {
		return err
	}
	l = l.with(entry{
		Zone: p.zone, Name: p.name, Value: ch.DNSValue,
		TTL: int64(s.ttl() / time.Second), Added: added, At: time.Now().Unix(),
	})
	return s.save(ctx, ch, l)
}

// noteFailed makes durable that the provider refused what was noted last.
func (s *Solver) noteFailed(ctx context.Context, ch *certwright.Challenge) error {
	l, err := s.ledger(*ch)
	if err != nil || len(l) == 0 || !l[len(l)-1].Added {
		return err
	}
	l = slices.Clone(l)
	l[len(l)-1].Failed = true
	return s.save(ctx, ch, l)
}

func (s *Solver) save(ctx context.Context, ch *certwright.Challenge, l ledger) error {
	state, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if ch.Save != nil {
		if err := ch.Save(ctx, state); err != nil {
			return fmt.Errorf("saving what is about to be written: %w", err)
		}
	}
	ch.State = state
	s.keep(keyOf(*ch), func(pr *presentation) {
		if !pr.isAt(l[len(l)-1].place()) {
			*pr = presentation{}
		}
		pr.ledger = l
	})
	return nil
}

// keep changes what is remembered of a challenge.
func (s *Solver) keep(k key, change func(*presentation)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.presents == nil {
		s.presents = map[key]presentation{}
	}
	p, ok := s.presents[k]
	if !ok && len(s.presents) >= maxPresents {
		for other := range s.presents { // its State still says what there is to know
			delete(s.presents, other)
			break
		}
	}
	change(&p)
	s.presents[k] = p
}

// wrote reports whether this process has written the value of a challenge at a place,
// and has not begun to delete it.
func (s *Solver) wrote(k key, p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.presents[k]
	return live.isAt(p) && live.written
}

// withdraw says that the value of a challenge is being deleted: nobody writes it anew.
func (s *Solver) withdraw(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if live, ok := s.presents[k]; ok {
		live.written = false
		s.presents[k] = live
	}
}

func (s *Solver) forget(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.presents, k)
}

// kept is the record that was returned for a value at a place; nil: none.
func (s *Solver) kept(k key, p place) libdns.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if live := s.presents[k]; live.isAt(p) {
		return live.record
	}
	return nil
}

// lately are the values that challenges of this Solver wrote at a place a short time
// ago.
func (s *Solver) lately(p place) (values []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, live := range s.presents {
		if live.isAt(p) && live.written && live.last().age() < publishTime {
			values = append(values, live.last().Value)
		}
	}
	return values
}

// rewritten says that values of a place were written anew: what was returned for
// them before is of no use any more.
func (s *Solver) rewritten(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, live := range s.presents {
		if live.isAt(p) {
			live.record = nil
			s.presents[k] = live
		}
	}
}
