// Issue measures how long it takes to get certificates from an ACME CA, with
// certwright, CertMagic, autocert and, as the limit, acmez alone: its protocol
// calls one after the other, looking for results without a pause. All ask the
// same Pebble, in this process, in turn and in one run:
//
//	go run ./issue          all rows, in about six minutes
//	go run ./issue -quick   certwright and the limit only, fewer rounds and names
//
// It prints "row <id> <column> <value> <unit>" for each result; times are
// medians. All answer http-01 but autocert, which prefers tls-alpn-01;
// -challenge tls-alpn-01 has certwright and the limit answer that. The rows dns-*
// answer dns-01 with the same libdns provider, in one order where a library can.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"time"
)

// column is one of the compared programs, with an account of its own.
type column interface {
	// enter binds what must be bound before, leave gives it back: of all
	// columns only one has the validation ports at a time.
	enter() error
	leave() error

	// issue gets a certificate for each of names, at most inFlight at once, and
	// returns when all are ready to be served.
	issue(ctx context.Context, names []string) error
	close() error
}

// settings are what the columns are opened with.
type settings struct {
	ca        *testCA
	challenge string
	inFlight  int

	// dns is where the records of dns-01 are written and looked at. All names are
	// then for one certificate, where a column can have that. nil: another challenge.
	dns *zone
}

// kinds are the compared columns. A slow one is measured in fewer rounds, since
// its times vary by less than they are.
var kinds = []struct {
	name string
	open func(settings) (column, error)
	slow bool
	dns  bool // it can answer dns-01
}{
	{"limit", openLimit, false, true},
	{"certwright", openCertwright, false, true},
	{"certmagic", openCertMagic, true, true},
	{"autocert", openAutocert, true, false},
}

var (
	quick     = flag.Bool("quick", false, "measure certwright and the limit only, in fewer rounds")
	challenge = flag.String("challenge", "http-01", "what certwright and the limit answer: http-01 or tls-alpn-01")
	inFlight  = flag.Int("inflight", 16, "certificates in flight at once, at most 32")
	only      = flag.String("only", "", "the one row to measure, such as issue-warm")
)

func main() {
	flag.Parse()
	log.SetOutput(io.Discard) // CertMagic tells of a listener that it closed
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if *inFlight < 1 || *inFlight > 32 {
		return fmt.Errorf("checking -inflight: %d is not in 1 to 32", *inFlight)
	}
	ca, err := startCA()
	if err != nil {
		return err
	}
	defer ca.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	b := &bench{set: settings{ca: ca, challenge: *challenge, inFlight: *inFlight}}
	for _, row := range []struct {
		id  string
		run func(context.Context) error
	}{
		{"issue-warm", b.warm},
		{"issue-200", b.many},
		{"issue-rtt50", b.distant},
		{"dns-wildcard", b.wildcard},
		{"dns-100", b.delayed},
		{"dns-100-5rps", b.paced},
	} {
		if *only != "" && *only != row.id {
			continue
		}
		if err := row.run(ctx); err != nil {
			return fmt.Errorf("measuring %s: %w", row.id, err)
		}
	}
	return nil
}

// namesZone is the zone that all names are in.
const namesZone = "bench.test"

// bench measures the rows.
type bench struct {
	set    settings
	names  int
	faults int
}

// fresh returns n names that no other call returned.
func (b *bench) fresh(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("n%d.%s", b.names, namesZone)
		b.names++
	}
	return list
}

// rounds returns in how many of the rounds of a row a column takes part.
func rounds(slow bool, most int) int {
	switch {
	case *quick && slow:
		return 0
	case *quick:
		return max(most/3, 1)
	case slow:
		return max(most/5, 1)
	}
	return most
}

// measured is what one issue took.
type measured struct {
	ms       float64
	requests float64 // to the CA until the certificate was there
	total    float64 // and those that followed
	calls    float64 // of the DNS provider
}

// one measures an issue in a column.
func (b *bench) one(ctx context.Context, c column, names []string) (m measured, err error) {
	if err := c.enter(); err != nil {
		return measured{}, err
	}
	defer func() { err = errors.Join(err, c.leave()) }()
	b.set.ca.settle()
	before, calls := b.set.ca.requests(), b.set.dns.count()
	begin := time.Now()
	if err := errors.Join(c.issue(ctx, names), b.set.dns.empty(ctx)); err != nil {
		return measured{}, err
	}
	took := time.Since(begin)
	m = measured{
		ms:       float64(took) / 1e6,
		requests: float64(b.set.ca.requests() - before),
		calls:    float64(b.set.dns.count() - calls),
	}
	b.set.ca.settle()
	m.total = float64(b.set.ca.requests() - before)
	return m, nil
}

// fault tells of an issue that failed, which on a busy host Pebble's validator
// can cause by giving up early: the round does not count. A few are borne.
func (b *bench) fault(column string, err error) error {
	if err == nil {
		return nil
	}
	const most = 5
	if b.faults++; b.faults > most {
		return fmt.Errorf("issuing with %s: %w", column, err)
	}
	fmt.Fprintf(os.Stderr, "a round of %s does not count: %v\n", column, err)
	return nil
}

// warm measures one certificate for a client that has an account and has
// issued before.
func (b *bench) warm(ctx context.Context) error {
	got, err := b.warmRounds(ctx, 30, "")
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if len(got[k.name]) == 0 {
			continue
		}
		print("issue-warm", k.name, median(got[k.name], func(m measured) float64 { return m.ms }), "ms")
		print("issue-warm-requests", k.name, median(got[k.name], func(m measured) float64 { return m.requests }), "requests")
		print("issue-warm-requests-total", k.name, median(got[k.name], func(m measured) float64 { return m.total }), "requests")
	}
	return nil
}

// distant is warm with a CA that is 50 ms away.
func (b *bench) distant(ctx context.Context) error {
	b.set.ca.rtt.Store(int64(50 * time.Millisecond))
	defer b.set.ca.rtt.Store(0)
	got, err := b.warmRounds(ctx, 15, "")
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if len(got[k.name]) > 0 {
			print("issue-rtt50", k.name, median(got[k.name], func(m measured) float64 { return m.ms }), "ms")
			print("issue-rtt50-requests", k.name, median(got[k.name], func(m measured) float64 { return m.requests }), "requests")
		}
	}
	return nil
}

// warmRounds measures rounds of one certificate each, for a name with a prefix.
func (b *bench) warmRounds(ctx context.Context, most int, prefix string) (map[string][]measured, error) {
	got := map[string][]measured{}
	columns := make([]column, len(kinds))
	for i, k := range kinds {
		if rounds(k.slow, most) == 0 || b.set.dns != nil && !k.dns {
			continue
		}
		c, err := k.open(b.set)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", k.name, err)
		}
		defer c.close()
		columns[i] = c
	}
	for round := -1; round < most; round++ { // the first warms up and does not count
		for i, k := range kinds {
			if round >= rounds(k.slow, most) || columns[i] == nil {
				continue
			}
			m, err := b.one(ctx, columns[i], []string{prefix + b.fresh(1)[0]})
			if err := b.fault(k.name, err); err != nil {
				return nil, err
			}
			if err == nil && round >= 0 {
				got[k.name] = append(got[k.name], m)
			}
		}
	}
	return got, nil
}

// many measures 200 certificates for a client that has no account yet, in
// milliseconds for each.
func (b *bench) many(ctx context.Context) error {
	const count = 200
	got, err := b.coldRounds(ctx, 7, count)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if len(got[k.name]) > 0 {
			print("issue-200", k.name, median(got[k.name], func(m measured) float64 { return m.ms / count }), "ms")
			print("issue-200-requests", k.name, median(got[k.name], func(m measured) float64 { return m.requests / count }), "requests")
		}
	}
	return nil
}

// coldRounds measures rounds of count names each, for clients without an account.
func (b *bench) coldRounds(ctx context.Context, most, count int) (map[string][]measured, error) {
	got := map[string][]measured{}
	for round := range most {
		for _, k := range kinds {
			if round >= rounds(k.slow, most) || b.set.dns != nil && !k.dns {
				continue
			}
			c, err := k.open(b.set)
			if err != nil {
				return nil, fmt.Errorf("opening %s: %w", k.name, err)
			}
			m, err := b.one(ctx, c, b.fresh(count))
			if err := c.close(); err != nil {
				return nil, fmt.Errorf("closing %s: %w", k.name, err)
			}
			if err := b.fault(k.name, err); err != nil {
				return nil, err
			}
			if err == nil {
				got[k.name] = append(got[k.name], m)
			}
		}
	}
	return got, nil
}

func print(id, column string, value float64, unit string) {
	fmt.Printf("row %s %s %.4g %s\n", id, column, value, unit)
}

func median(list []measured, of func(measured) float64) float64 {
	values := make([]float64, 0, len(list))
	for _, m := range list {
		values = append(values, of(m))
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
