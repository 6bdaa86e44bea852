package certwright

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/revocation"
)

// The tables of the pure part of the engine look inside, because all that
// follows outside follows from it.

const (
	tableStart = int64(1_800_000_000) // Unix seconds
	aDay       = int64(24 * 60 * 60)
	anHour     = int64(60 * 60)
)

// onDay returns a time of the tables.
func onDay(n float64) int64 { return tableStart + int64(n*float64(aDay)) }

// lives is a certificate that lives from a day to another, and was stored when it
// began.
func lives(from, to float64) *records.Bundle {
	return &records.Bundle{Names: []string{"a.example.com"}, NotBefore: onDay(from), NotAfter: onDay(to), End: onDay(to), Stored: onDay(from)}
}

// Issuers of the tables: the account of the last is held up until day 12.
var (
	issuerOne, issuerTwo = &issuer{id: "one", ca: "one"}, &issuer{id: "two", ca: "two"}
	issuerDown           = func() *issuer {
		i := &issuer{id: "down", ca: "down"}
		i.down.Store(&records.Hold{Account: "down", Noted: onDay(9.9), Last: onDay(9.9), Until: onDay(12)})
		return i
	}()
)

func asking(issuers ...*issuer) *settings { return &settings{issuers: issuers} }

// held are the last attempts at issuers, whose holds were noted when they began.
func held(until map[*issuer]records.Hold) *trouble {
	t := &trouble{tries: map[string]*try{}}
	for iss, h := range until {
		h.Account, h.Subject = iss.id, "a.example.com"
		if h.Noted == 0 {
			h.Noted = onDay(9.9)
		}
		t.tries[iss.id] = &try{hold: h, wish: triedFor}
	}
	return t
}

func bit(kinds ...deed) (b deeds) {
	for _, k := range kinds {
		b |= 1 << k
	}
	return b
}

// decideCase is a line of the table: what decide says of a state on day 10.
// triedFor is the wish that attempts in the past were made for.
const triedFor = 7

type decideCase struct {
	name string
	s    *state
	want action
}

func rest(at int64, next Action) action { return action{at: at, next: next} }

func waits(at int64) action { return action{at: at, next: ActionRetry, held: true} }

func checkDecide(t *testing.T, cases []decideCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.s
			if s.cfg == nil {
				s.cfg = asking(issuerOne)
			}
			if got := decide(s, onDay(10)); got != tt.want {
				t.Errorf("decide = %+v; want %+v", got, tt.want)
			}
		})
	}
}

func TestDecideLoadsFirst(t *testing.T) {
	gone := &trouble{gone: ErrNotManaged}
	later := &trouble{retry: onDay(10) + 60}
	checkDecide(t, []decideCase{
		{"new", &state{}, action{do: doLoad}},
		{"new, being loaded", &state{busy: bit(doLoad)}, rest(never, "")},
		{"new, loading has failed", &state{why: later}, rest(later.retry, ActionLoad)},
		{"new, the pause is over", &state{why: &trouble{retry: onDay(10)}}, action{do: doLoad}},
		{"new, and a new one is wished", &state{wish: 1}, action{do: doLoad}},
		{"gone", &state{why: gone}, rest(never, "")},
		{"gone, with all there is to do", &state{why: gone, wish: 1, next: lives(0, 90), cur: served{b: lives(0, 9)}}, rest(never, "")},
		{
			"something is served before storage was read", // by a put-back
			&state{cur: served{b: lives(0, 9)}, know: isExpired},
			action{do: doLoad},
		},
		{
			"storage is to be read again",
			&state{know: isLoaded, cur: served{b: lives(0, 90)}, readAt: onDay(10), ariAt: never, ocspAt: never},
			action{do: doLoad},
		},
		{
			"storage is to be read again, later",
			&state{know: isLoaded, cur: served{b: lives(0, 90)}, readAt: onDay(10) + 600, ariAt: never, ocspAt: never},
			rest(onDay(10)+600, ActionLoad),
		},
		{
			"storage is to be read again after a failure",
			&state{know: isLoaded, cur: served{b: lives(0, 90)}, readAt: 1, ariAt: never, ocspAt: never, why: later},
			rest(later.retry, ActionLoad),
		},
		{
			"storage is being read again",
			&state{know: isLoaded, busy: bit(doLoad), readAt: 1},
			action{do: doObtain},
		},
		{
			"storage is to be read again while an order is made",
			&state{know: isLoaded, busy: bit(doObtain), readAt: 1},
			action{do: doLoad},
		},
	})
}

func TestDecideServesWhatIsStored(t *testing.T) {
	good, over, ahead := lives(0, 90), lives(-90, 9), lives(12, 102)
	checkDecide(t, []decideCase{
		{"the first", &state{next: good}, action{do: doInstall}},
		{"the next", &state{next: good, cur: served{b: lives(-30, 60)}}, action{do: doInstall}},
		{"the next, of one that has expired untold", &state{next: good, cur: served{b: over}}, action{do: doInstall}},
		{"the next, although another is wished", &state{next: good, wish: 1, know: isLoaded}, action{do: doInstall}},
		{"not valid yet, and nothing else", &state{next: ahead}, action{do: doInstall}},
		{"not valid yet, and what is served has ended", &state{next: ahead, cur: served{b: over}, know: isExpired}, action{do: doInstall}},
		{
			"not valid yet, and nothing is asked about what it replaces",
			&state{next: ahead, cur: served{b: good}, know: isLoaded},
			rest(onDay(12), ActionServe),
		},
		{
			"not valid before the end of what is served",
			&state{next: ahead, cur: served{b: lives(0, 11)}, know: isLoaded},
			rest(onDay(11), ActionExpire),
		},
		{
			"not valid yet, and due itself",
			&state{next: &records.Bundle{Names: good.Names, NotBefore: onDay(10.5), End: onDay(11), Stored: onDay(0)}, cur: served{b: lives(0, 11)}, know: isLoaded},
			rest(onDay(10.5), ActionServe),
		},
	})
}

// mustStapled returns a certificate that clients refuse without a staple.
func mustStapled(t *testing.T) *records.Bundle {
	t.Helper()
	key, err := certpem.GenerateKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	feature, err := certpem.MustStapleExtension()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"a.example.com"}, NotAfter: time.Now(), OCSPServer: []string{"http://ocsp.test"},
		ExtraExtensions: []pkix.Extension{feature},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	b, _, err := records.New(nil, records.Options{}).Make(records.NewBundle{Names: tmpl.DNSNames, Key: key, Chain: text})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A staple may be insisted on (RFC 7633). (F30)
func TestDecideServesWithAStaple(t *testing.T) {
	must := func(from, to float64) *records.Bundle {
		b := mustStapled(t)
		b.NotBefore, b.NotAfter, b.End, b.Stored = onDay(from), onDay(to), onDay(to), onDay(from)
		return b
	}
	staple := func(status revocation.Status, until float64) *revocation.Staple {
		return &revocation.Staple{Raw: []byte{1}, Status: status, ThisUpdate: time.Unix(onDay(9), 0), NextUpdate: time.Unix(onDay(until), 0)}
	}
	good := staple(revocation.Good, 13)
	waiting := func(s *state) *state {
		s.know, s.cfg, s.next = s.know|isLoaded, &settings{issuers: []*issuer{issuerOne}, staples: true}, must(10, 100)
		return s
	}
	checkDecide(t, []decideCase{
		{"the next one is asked about", waiting(&state{cur: served{b: lives(0, 15)}}), action{do: doStaple}},
		{"until the one before has ended", waiting(&state{cur: served{b: lives(0, 15)}, ocspAt: onDay(20)}), rest(onDay(15), ActionServe)},
		{"until the staple of the one before has ended", waiting(&state{cur: served{b: must(0, 90), staple: good}, ocspAt: onDay(20)}), rest(onDay(13), ActionServe)},
		{"the one before has no staple", waiting(&state{cur: served{b: must(0, 90)}, ocspAt: onDay(20)}), action{do: doInstall}},
		{"the one before is revoked", waiting(&state{cur: served{b: lives(0, 15), staple: staple(revocation.Revoked, 13)}, ocspAt: onDay(20)}), action{do: doInstall}},
		{"there is none before", waiting(&state{}), action{do: doInstall}},
		{"it has its own", waiting(&state{cur: served{b: lives(0, 15)}, why: &trouble{staple: good}}), action{do: doInstall}},
		{"it cannot be asked about", waiting(&state{cur: served{b: lives(0, 15)}, ocspAt: never}), action{do: doInstall}},
		{"what is stapled ends", &state{know: isLoaded, cur: served{b: lives(0, 90), staple: good}, ariAt: never, ocspAt: onDay(14)}, rest(onDay(13), ActionStaple)},
		{"what is stapled has ended", &state{know: isLoaded, cur: served{b: lives(0, 90), staple: staple(revocation.Good, 10)}, busy: bit(doStaple)}, action{do: doUnstaple}},
	})
}

func TestDecideRenews(t *testing.T) {
	good, over := lives(0, 90), lives(-90, 9)
	due := lives(-60, 30) // two thirds are over
	quiet := func(s *state) *state {
		s.know |= isLoaded
		s.ariAt, s.ocspAt = never, never
		return s
	}
	renewal := renewalTime(good, nil, renewalPolicy{})
	window := &suggestion{start: onDay(20), end: onDay(21), selected: onDay(20.5)}
	checkDecide(t, []decideCase{
		{"nothing there", quiet(&state{}), action{do: doObtain}},
		{"nothing there, being ordered", quiet(&state{busy: bit(doObtain)}), rest(never, "")},
		{"far from due", quiet(&state{cur: served{b: good}}), rest(renewal, ActionRenew)},
		{"far from due, an earlier window", quiet(&state{cur: served{b: good, ari: window}}), rest(onDay(20.5), ActionRenew)},
		{"far from due, a window now", quiet(&state{cur: served{b: good, ari: &suggestion{selected: onDay(10)}}}), action{do: doObtain}},
		{"far from due, wished", quiet(&state{cur: served{b: good}, wish: 1}), action{do: doObtain}},
		{"far from due, another is configured", quiet(&state{cur: served{b: good}, know: isUnwanted}), action{do: doObtain}},
		{"far from due, and broken", quiet(&state{cur: served{b: good}, why: &trouble{broken: good}}), action{do: doObtain}},
		{"what it replaced was broken", quiet(&state{cur: served{b: good}, why: &trouble{broken: over}}), rest(renewal, ActionRenew)},
		{"what is broken is not valid yet", quiet(&state{cur: served{b: lives(0, 11)}, next: lives(10.5, 99), why: &trouble{broken: over}}), rest(onDay(10.5), ActionServe)},
		{"revoked", quiet(&state{cur: served{b: good}, know: isRevoked}), action{do: doObtain}},
		{"revoked as soon as it was stored", quiet(&state{cur: served{b: lives(10, 100)}, know: isRevoked}), rest(onDay(10)+6*anHour, ActionRenew)},
		{"revoked as soon as it was stored, and of a day", quiet(&state{cur: served{b: lives(10, 11)}, know: isRevoked}), rest(onDay(10.1), ActionRenew)},
		{"due", quiet(&state{cur: served{b: due}}), action{do: doObtain}},
		{"due, being renewed", quiet(&state{cur: served{b: due}, busy: bit(doObtain)}), rest(onDay(30), ActionExpire)},
		{"due, after a failure of storage", quiet(&state{cur: served{b: due}, why: &trouble{retry: onDay(10) + 600}}), waits(onDay(10) + 600)},
		{"expired", quiet(&state{cur: served{b: over}}), action{do: doExpire}},
		{"expired and not loaded", &state{cur: served{b: over}}, action{do: doExpire}},
		{"expired and told", quiet(&state{cur: served{b: over}, know: isExpired}), action{do: doObtain}},
		{"expired and told, being renewed", quiet(&state{cur: served{b: over}, know: isExpired, busy: bit(doObtain)}), rest(never, "")},
		{"at its very end", quiet(&state{cur: served{b: lives(-80, 10)}}), action{do: doExpire}},
	})
}

func TestDecideMindsHolds(t *testing.T) {
	hold := func(h records.Hold) *trouble { return held(map[*issuer]records.Hold{issuerOne: h}) }
	both := func(one, two float64) *trouble {
		return held(map[*issuer]records.Hold{issuerOne: {Until: onDay(one)}, issuerTwo: {Until: onDay(two)}})
	}
	onDownToo := held(map[*issuer]records.Hold{issuerDown: {Until: onDay(13)}})
	none := func(why *trouble, issuers ...*issuer) *state {
		return &state{know: isLoaded, why: why, cfg: asking(issuers...)}
	}
	for _, tt := range []decideCase{
		{"one issuer", none(hold(records.Hold{Until: onDay(11)}), issuerOne), waits(onDay(11))},
		{"one issuer, and storage fails for longer", none(&trouble{tries: both(10.001, 0).tries, retry: onDay(10) + 600}, issuerOne), waits(onDay(10) + 600)},
		{"one issuer, it is over", none(hold(records.Hold{Until: onDay(10)}), issuerOne), action{do: doObtain}},
		{"one issuer, noted by a clock that is ahead", none(hold(records.Hold{Noted: onDay(10) + 121, Until: onDay(11)}), issuerOne), action{do: doObtain}},
		{"one issuer, noted within the skew of clocks", none(hold(records.Hold{Noted: onDay(10) + 120, Until: onDay(11)}), issuerOne), waits(onDay(11))},
		{"one issuer, longer than any wait", none(hold(records.Hold{Noted: onDay(10), Until: onDay(18.01)}), issuerOne), action{do: doObtain}},
		{"the first of two", none(hold(records.Hold{Until: onDay(11)}), issuerOne, issuerTwo), action{do: doObtain, issuer: 1}},
		{"the second of two", none(hold(records.Hold{Until: onDay(11)}), issuerTwo, issuerOne), action{do: doObtain}},
		{"both, the first ends first", none(both(11, 12), issuerOne, issuerTwo), waits(onDay(11))},
		{"both, the second ends first", none(both(12, 11), issuerOne, issuerTwo), waits(onDay(11))},
		{"the account", none(nil, issuerDown), waits(onDay(12))},
		{"the account of the first of two", none(nil, issuerDown, issuerTwo), action{do: doObtain, issuer: 1}},
		{"the account, and the name there for longer", none(onDownToo, issuerDown), waits(onDay(13))},
		{"the account, and the name at another", none(both(11, 0), issuerOne, issuerDown), waits(onDay(11))},
		{"what is served goes on", &state{know: isLoaded | isUnwanted, cur: served{b: lives(0, 90)}, ariAt: never, ocspAt: never, why: both(11, 0)}, waits(onDay(11))},
		{
			"what is served ends before",
			&state{know: isLoaded | isUnwanted, cur: served{b: lives(0, 10.5)}, ariAt: never, ocspAt: never, why: both(11, 0)},
			action{at: onDay(10.5), next: ActionExpire, held: true},
		},
	} {
		checkDecide(t, []decideCase{tt})
	}
}

func TestDecidePassesOwnBackOffForWhoWaits(t *testing.T) {
	hold := func(h records.Hold) *trouble { return held(map[*issuer]records.Hold{issuerOne: h}) }
	none := func(know facts, wish int64, h records.Hold) *state {
		return &state{know: isLoaded | know, wish: wish, why: hold(h)}
	}
	recent := onDay(10) - 299
	checkDecide(t, []decideCase{
		{"the last attempt is five minutes old", none(isTried, 0, records.Hold{Until: onDay(11), Last: recent - 1}), action{do: doObtain}},
		{"the last attempt is younger", none(isTried, 0, records.Hold{Until: onDay(11), Last: recent}), waits(onDay(11))},
		{"the CA asked for it", none(isTried, 0, records.Hold{Until: onDay(11), ByCA: true}), waits(onDay(11))},
		{"wished after the last attempt", none(0, recent*1e9+1, records.Hold{Until: onDay(11), Last: recent}), action{do: doObtain}},
		{"wished, which the last attempt was for", none(0, triedFor, records.Hold{Until: onDay(11), Last: recent}), waits(onDay(11))},
		{"wished, and the CA asked for it", none(0, recent*1e9+1, records.Hold{Until: onDay(11), Last: recent, ByCA: true}), waits(onDay(11))},
		{"nobody waits", none(0, 0, records.Hold{Until: onDay(11)}), waits(onDay(11))},
	})
}

func TestDecideSeesToUpkeepWhenNothingElseIs(t *testing.T) {
	good := served{b: lives(0, 90)}
	renewal := renewalTime(good.b, nil, renewalPolicy{})
	checkDecide(t, []decideCase{
		{"both are due", &state{know: isLoaded, cur: good}, action{do: doInform}},
		{"one is under way", &state{know: isLoaded, cur: good, busy: bit(doInform)}, action{do: doStaple}},
		{"both are", &state{know: isLoaded, cur: good, busy: bit(doInform, doStaple)}, rest(renewal, ActionRenew)},
		{"renewal info is never asked for", &state{know: isLoaded, cur: good, ariAt: never}, action{do: doStaple}},
		{"renewal info comes next", &state{know: isLoaded, cur: good, ariAt: onDay(11), ocspAt: onDay(12)}, rest(onDay(11), ActionRenewalInfo)},
		{"a staple comes next", &state{know: isLoaded, cur: good, ariAt: onDay(12), ocspAt: onDay(11)}, rest(onDay(11), ActionStaple)},
		{"a renewal is due", &state{know: isLoaded, cur: served{b: lives(-60, 30)}}, action{do: doObtain}},
		{"a renewal is under way", &state{know: isLoaded, cur: served{b: lives(-60, 30)}, busy: bit(doObtain)}, action{do: doInform}},
		{
			"a renewal has to wait",
			&state{know: isLoaded, cur: served{b: lives(-60, 30)}, why: held(map[*issuer]records.Hold{issuerOne: {Until: onDay(11)}})},
			action{do: doInform},
		},
		{"storage was not read", &state{cur: good, why: &trouble{retry: onDay(10) + 600}}, rest(onDay(10)+600, ActionLoad)},
		{"nothing is served", &state{know: isLoaded, busy: bit(doObtain)}, rest(never, "")},
		{"the next one is there", &state{know: isLoaded, cur: good, next: lives(11, 99)}, rest(onDay(11), ActionServe)},
	})
}

func TestWhenAHoldLetsAnIssuerBeAsked(t *testing.T) {
	now := onDay(10)
	ago := func(minutes ...int64) (list []int64) {
		for _, m := range minutes {
			list = append(list, now-60*m)
		}
		return list
	}
	const until = int64(2 * 60 * 60) // after now
	waiting, wished := pass{tried: true}, pass{wish: now * 1e9}
	for _, tt := range []struct {
		name  string
		p     pass
		h     *records.Hold
		tried int64
		want  int64 // after now; 0 or less: now
	}{
		{"none", pass{}, nil, 0, -now},
		{"own", pass{}, &records.Hold{}, 0, until},
		{"by the CA, whoever waits", pass{wish: now * 1e9, tried: true}, &records.Hold{ByCA: true, Last: now - 9999}, 0, until},
		{"who waits, right after an attempt", waiting, &records.Hold{Last: now}, 0, until},
		{"who waits, five minutes later", waiting, &records.Hold{Last: now - 300}, 0, -now},
		{"three have failed", waiting, &records.Hold{Last: now - 300, Failed: ago(50, 20, 6)}, 0, -now},
		{"four have failed", waiting, &records.Hold{Last: now - 300, Failed: ago(50, 40, 20, 6)}, 0, until},
		{"one of four is an hour old", waiting, &records.Hold{Last: now - 300, Failed: ago(61, 40, 20, 6)}, 0, -now},
		{"Renew", wished, &records.Hold{Last: now}, 0, -now},
		{"Renew, after an attempt for another call", wished, &records.Hold{Last: now}, now*1e9 + 1, -now},
		{"Renew, which the last attempt was for", wished, &records.Hold{Last: now}, now * 1e9, until},
		{"Renew, and four have failed", wished, &records.Hold{Failed: ago(50, 40, 20, 6)}, 0, 10*60 + 1},
		{"Renew, and six have failed", wished, &records.Hold{Failed: ago(59, 58, 50, 40, 20, 6)}, 0, 10*60 + 1},
		{"nobody waits, and four have failed just now", pass{}, &records.Hold{Until: now + 60, Failed: ago(1, 1, 1, 1)}, 0, 59*60 + 1},
		{"it has ended", pass{}, &records.Hold{Until: now}, 0, -now},
		{"it was noted in the future", pass{}, &records.Hold{Noted: now + 121}, 0, -now},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.h != nil && tt.h.Until == 0 {
				tt.h.Until = now + until
			}
			if tt.h != nil && tt.h.Noted == 0 {
				tt.h.Noted = now - 60*60
			}
			if got := tt.p.until(tt.h, tt.tried, now) - now; got != tt.want && !(tt.want <= 0 && got <= 0) {
				t.Errorf("%d s from now; want %d", got, tt.want)
			}
		})
	}
}

func TestWhenFailuresSayThatTheCAIsDown(t *testing.T) {
	began := time.Unix(tableStart, 0)
	noAnswer := func(step string) error { return &StepError{Step: step, Err: context.DeadlineExceeded} }
	refusal := func(status int) error { return &StepError{Step: "order", Problem: &Problem{Status: status}} }
	fresh := attempt{began: began}
	before := attempt{began: began, holds: holds{"x": {Attempts: 1}}}
	type failure struct {
		name string
		err  error
		a    attempt
	}
	none := noAnswer("order")
	for _, tt := range []struct {
		name     string
		answered time.Time
		isDown   bool // already
		list     []failure
		want     bool // after the last
	}{
		{"no directory", began, false, []failure{{"a", noAnswer("directory"), fresh}}, true},
		{"no account", began, false, []failure{{"a", noAnswer("account"), before}}, true},
		{"two names", time.Time{}, false, []failure{{"a", none, fresh}, {"b", none, fresh}}, false},
		{"three names", time.Time{}, false, []failure{{"a", none, fresh}, {"b", refusal(503), fresh}, {"c", noAnswer("finalize"), fresh}}, true},
		{"a portal", time.Time{}, false, []failure{{"a", refusal(302), fresh}, {"b", refusal(307), fresh}, {"c", refusal(511), fresh}}, true},
		{"one name three times", time.Time{}, false, []failure{{"a", none, fresh}, {"a", none, fresh}, {"a", none, fresh}}, false},
		{"three names, one of which has failed before", time.Time{}, false, []failure{{"a", none, fresh}, {"b", none, before}, {"c", none, fresh}}, false},
		{"a name that has failed before, and it is down", time.Time{}, true, []failure{{"a", none, fresh}, {"b", none, fresh}, {"c", none, before}}, true},
		{"three names, and one was refused", time.Time{}, false, []failure{{"a", none, fresh}, {"b", none, fresh}, {"x", refusal(403), fresh}, {"c", none, fresh}}, false},
		{"another got an answer meanwhile", began.Add(time.Second), false, []failure{{"a", none, fresh}, {"b", none, fresh}, {"c", none, fresh}}, false},
		{"another got an answer lately", began.Add(-time.Minute), false, []failure{{"a", none, fresh}, {"b", none, fresh}, {"c", none, fresh}}, false},
		{"the last answer is long ago", began.Add(-time.Hour), false, []failure{{"a", none, fresh}, {"b", none, fresh}, {"c", none, fresh}}, true},
		{"failed validations", time.Time{}, false, []failure{{"a", noAnswer("challenge"), fresh}, {"b", noAnswer("challenge"), fresh}, {"c", noAnswer("challenge"), fresh}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iss, got := &issuer{id: "ca", answered: tt.answered}, false
			if tt.isDown {
				iss.down.Store(&records.Hold{})
			}
			for _, f := range tt.list {
				got = iss.isDown(f.err, f.a, f.name)
			}
			if got != tt.want {
				t.Errorf("isDown = %v", got)
			}
		})
	}
}

func TestWhoGoesFirst(t *testing.T) {
	now := time.Now().Unix()
	ends := func(in int64) served { return served{b: &records.Bundle{End: now + in}} }
	var before int64 = -1
	for _, tt := range []struct {
		name string
		cur  served
		know facts
		why  *trouble
	}{
		{"waited for", ends(90 * aDay), 0, &trouble{waiters: []*waiter{{}}}},
		{"revoked", ends(90 * aDay), isRevoked, nil},
		{"expired for long", ends(-aDay), 0, nil},
		{"just expired", ends(0), 0, nil},
		{"about to end", ends(anHour), 0, nil},
		{"none", served{}, 0, nil},
		{"good for some days", ends(2 * aDay), 0, nil},
		{"good for weeks", ends(30 * aDay), 0, nil},
	} {
		c := &managed{}
		c.cur, c.know, c.why = tt.cur, tt.know, tt.why
		need := new(Manager).needOf(c)
		if need <= before {
			t.Errorf("%s does not go behind what stands before it", tt.name)
		}
		before = need
	}
}
