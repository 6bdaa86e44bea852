package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/dnsprobe"
)

// nobodyTime is for how long is looked again when there is nobody who could be asked.
const nobodyTime = 10 * time.Second

// Wait waits for Delay and then until all servers show the record of ch, but for one
// of several that does not answer: the zone's own servers, or Resolvers. After
// Timeout it returns an error that says what each server shows. When it cannot be
// looked, because nobody answers, or because a resolver keeps to what it was told
// before the record was written, Wait logs a warning and returns nil: the CA decides.
func (s *Solver) Wait(ctx context.Context, ch certwright.Challenge) error {
	name, serves, err := s.accept(ch)
	if err != nil {
		return err
	}
	if isNil(s.Provider) {
		return nil // Present has looked
	}
	if err := pause(ctx, s.Delay); err != nil {
		return fmt.Errorf("waiting %v for TXT %q to spread: %w", s.Delay, name, err)
	}
	if s.Timeout < 0 {
		return nil
	}
	p, err := s.written(ctx, ch, name)
	if err != nil {
		log(ch).Warn("a TXT record cannot be looked for, and the CA is asked without", "record", name, "err", err)
		return nil
	}
	w := watch{solver: s, ch: ch, zone: string(p.zone), name: string(p.name), serves: serves, timeout: s.Timeout}
	if w.timeout == 0 {
		w.timeout = defaultTimeout
	}
	if len(s.Resolvers) > 0 {
		w.name = string(name) // as the CA asks
	}
	return w.wait(ctx)
}

// written is where the record of a challenge is.
func (s *Solver) written(ctx context.Context, ch certwright.Challenge, name fqdn) (place, error) {
	l := s.live(ch).ledger
	if l == nil {
		l, _ = s.ledger(ch)
	}
	if len(l) > 0 {
		return l[len(l)-1].place(), nil
	}
	return s.shown(ctx, name)
}

// shown is where the DNS says that a record for name is.
func (s *Solver) shown(ctx context.Context, name fqdn) (place, error) {
	if len(s.Resolvers) > 0 {
		return place{name: name}, nil // they find it
	}
	path, err := s.dns().Follow(ctx, string(name))
	if err != nil {
		return place{}, err
	}
	if len(path) > 0 {
		name = plain(path[len(path)-1])
	}
	z, err := s.zoneOf(ctx, name)
	if err != nil {
		return place{}, err
	}
	p, _ := at(z, name)
	return p, nil
}

// A watch looks for a record until it is shown.
type watch struct {
	solver     *Solver
	ch         certwright.Challenge
	zone, name string
	serves     func(value string) bool
	timeout    time.Duration
}

func (w watch) wait(ctx context.Context) error {
	start := time.Now()
	for wait, nobody := firstPause, true; ; wait = min(2*wait, maxPause) {
		v := w.look(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for TXT %q: %w: %s", w.name, context.Cause(ctx), v)
		}
		if v.done() {
			return nil
		}
		nobody = nobody && v.nobody()
		left := w.timeout - time.Since(start)
		if nobody {
			left = min(left, nobodyTime-time.Since(start))
		}
		if left <= 0 {
			return w.end(v)
		}
		w.tell(fmt.Sprintf("waiting for TXT %q: %s", w.name, v))
		if err := pause(ctx, min(wait, left)); err != nil {
			return fmt.Errorf("waiting for TXT %q: %w: %s", w.name, err, v)
		}
	}
}

// look asks all servers once.
func (w watch) look(ctx context.Context) view {
	answers, err := w.solver.dns().Look(ctx, w.zone, w.name)
	return view{answers: answers, err: err, serves: w.serves}
}

func (w watch) tell(detail string) {
	if w.ch.Progress != nil {
		w.ch.Progress(detail)
	}
}

// end says what comes of a record that was not shown in time.
func (w watch) end(v view) error {
	if !v.tells() {
		log(w.ch).Warn("a TXT record cannot be looked for, and the CA is asked without", "record", w.name, "zone", w.zone, "err", v.String())
		return nil
	}
	why := ""
	if v.others() {
		why = "; there are other values where it is missing: the DNS provider may keep only one a name"
	}
	return fmt.Errorf("waiting for TXT %q in zone %q, written with %s: not shown by all servers within %v: %s%s; raise Timeout if the provider is slow",
		w.name, w.zone, providerName(w.solver.Provider), w.timeout, v, why)
}

// A view is what the servers showed at one look.
type view struct {
	answers []dnsprobe.Answer
	err     error // nobody is known to ask
	serves  func(value string) bool
}

func (v view) shows(a dnsprobe.Answer) bool {
	return a.Err == nil && slices.ContainsFunc(a.Values, v.serves)
}

// done reports whether all show the value, but for one of several that is dead.
func (v view) done() bool {
	shown, dead := 0, 0
	for _, a := range v.answers {
		switch {
		case a.Err != nil:
			dead++
		case v.shows(a):
			shown++
		}
	}
	return v.err == nil && shown > 0 && dead <= 1 && shown+dead == len(v.answers)
}

// nobody reports whether there is nobody who could be asked: waiting changes that
// only if it was a hiccup of the network.
func (v view) nobody() bool {
	for _, a := range v.answers {
		if !slices.ContainsFunc([]error{syscall.ECONNREFUSED, syscall.ENETUNREACH, syscall.EHOSTUNREACH}, func(no error) bool { return errors.Is(a.Err, no) }) {
			return false
		}
	}
	return true
}

// tells reports whether a server that would know says that the value is not there.
// One that says what it was told before the record was written does not.
func (v view) tells() bool {
	return slices.ContainsFunc(v.answers, func(a dnsprobe.Answer) bool {
		return a.Err == nil && a.Cached == 0 && !v.shows(a)
	})
}

// others reports whether a server shows other values and not this one.
func (v view) others() bool {
	return slices.ContainsFunc(v.answers, func(a dnsprobe.Answer) bool {
		return a.Err == nil && len(a.Values) > 0 && !v.shows(a)
	})
}

// String says what each server shows that does not show the value, and how many do.
func (v view) String() string {
	var texts []string
	shown := 0
	for _, a := range v.answers {
		switch {
		case a.Err != nil:
			texts = append(texts, fmt.Sprintf("%s does not answer: %v", a.Server, a.Err))
		case v.shows(a):
			shown++
		case a.Cached > 0:
			texts = append(texts, fmt.Sprintf("%s keeps to what it was told before, that there is none (negative caching), for another %v", a.Server, a.Cached.Round(time.Second)))
		case len(a.Values) == 0:
			texts = append(texts, a.Server+" shows no TXT record")
		default:
			texts = append(texts, fmt.Sprintf("%s shows %s", a.Server, quoted(a.Values)))
		}
	}
	if v.err != nil {
		texts = append(texts, "it is not known whom to ask: "+v.err.Error())
	} else if len(v.answers) == 0 {
		texts = append(texts, "there is nobody to ask")
	}
	if shown > 0 {
		texts = append(texts, fmt.Sprintf("%d of %d servers show it", shown, len(v.answers)))
	}
	return strings.Join(texts, "; ")
}

// quoted lists values, but not any number of them.
func quoted(values []string) string {
	const most = 5
	var texts []string
	for i, value := range values {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(values)-most))
			break
		}
		texts = append(texts, fmt.Sprintf("%q", clip(value)))
	}
	return strings.Join(texts, ", ")
}

// inspect looks once whether a record that was set by hand serves, and says what
// differs. That nobody can be asked is a warning.
func (s *Solver) inspect(ctx context.Context, ch certwright.Challenge, name fqdn, serves func(string) bool) error {
	if s.Timeout < 0 {
		return nil
	}
	v := view{serves: serves}
	p, err := s.shown(ctx, name)
	if v.err = err; err == nil {
		v.answers, v.err = s.dns().Look(ctx, string(p.zone), string(p.name))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("looking for TXT %q: %w", name, context.Cause(ctx))
	}
	for _, a := range v.answers {
		if a.Err == nil && !v.shows(a) {
			want, _ := parsePersist(ch.DNSValue) // accept has looked at it
			return fmt.Errorf("the TXT record %q, which is set by hand, does not serve: %s: %s; set it to %q", name, a.Server, want.nearest(a.Values, time.Now()), ch.DNSValue)
		}
	}
	if !v.done() {
		log(ch).Warn("a TXT record cannot be looked for, and the CA is asked without", "record", name, "err", v.String())
	}
	return nil
}
