package certwright_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// The TXT record of each DNS type is in the Challenge.
func TestRecordsOfTheDNSTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		types := []string{"dns-01", "dns-account-01", "dns-persist-01"}
		got := map[string]Challenge{}
		z := &fakeZone{present: func(_ context.Context, ch Challenge) error {
			got[ch.Type] = ch
			return errors.New("try the next")
		}}
		ca, conf := newFake(t, fakeca.Options{Challenges: types})
		ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
			for _, ch := range m["challenges"].([]any) {
				if ch := ch.(map[string]any); ch["type"] == "dns-persist-01" {
					ch["issuer-domain-names"] = []any{"ca.example", "other.example"}
					ch["accounturi"] = "https://ca.example/of-the-challenge"
				}
			}
		}})
		conf.Issuers[0].(*ACME).Solvers = map[string]Solver{types[0]: z, types[1]: z, types[2]: z}
		if err := start(t, conf).ManageSync(t.Context(), []string{"*.example.com"}); err == nil {
			t.Fatal("it could not be solved")
		}
		ch := got["dns-01"]
		if ch.DNSName != "_acme-challenge.example.com" || len(ch.DNSValue) != 43 || !ch.Wildcard || ch.Name != "example.com" {
			t.Errorf("dns-01: %q %q", ch.DNSName, ch.DNSValue)
		}
		// Of the example in draft-ietf-acme-dns-account-label the account URL is known:
		// here it is only that the label is one of 10 bytes in base32, and the account's.
		ch = got["dns-account-01"]
		label, rest, _ := strings.Cut(ch.DNSName, ".")
		if rest != "_acme-challenge.example.com" || len(label) != 17 || label[0] != '_' || label != strings.ToLower(label) || len(ch.DNSValue) != 43 {
			t.Errorf("dns-account-01: %q %q", ch.DNSName, ch.DNSValue)
		}
		ch = got["dns-persist-01"]
		if ch.DNSName != "_validation-persist.example.com" || ch.DNSValue != "ca.example; accounturi=https://ca.example/of-the-challenge; policy=wildcard" || ch.Token != "" {
			t.Errorf("dns-persist-01: %q %q", ch.DNSName, ch.DNSValue)
		}
	})
}

// What cannot be waited for is that name's error, costs no validation at the CA, and
// another type is tried.
func TestWaitThatFailsCostsNoValidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{wait: func(_ context.Context, ch Challenge) error {
			if ch.Type == "dns-01" {
				return errors.New("ns2 lacks it")
			}
			return nil
		}}
		ca, conf := newFake(t, fakeca.Options{Challenges: []string{"dns-01", "dns-account-01"}})
		conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": z}
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"example.com"})
		var step *StepError
		if !errors.As(err, &step) || step.Step != "wait" || step.Challenge != "dns-01" || !strings.Contains(err.Error(), "ns2 lacks it") {
			t.Errorf("ManageSync = %v", err)
		}
		if n := ca.Count("challenge"); n != 0 {
			t.Errorf("the CA was asked %d times to validate", n)
		}
		closeManager(t, m)
		time.Sleep(2 * time.Minute)
		conf.Issuers[0].(*ACME).Solvers["dns-account-01"] = z
		manage(t, start(t, conf), "example.com")
		noRest(t, z, conf.Storage)
	})
}

// A DNS type that there is a Solver for goes before the types that the Manager answers
// itself, for names that are no wildcards too.
func TestDNSTypeWithASolverIsTriedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		ca, conf := newFake(t, fakeca.Options{Challenges: []string{"http-01", "tls-alpn-01", "dns-01"}})
		conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": z}
		manage(t, start(t, conf), "www.example.com")
		if z.count("Present") != 1 || ca.Count("challenge") != 1 {
			t.Errorf("%d calls of Present, %d validations", z.count("Present"), ca.Count("challenge"))
		}
	})
}

// checkedSolver says what it cannot do.
type checkedSolver struct {
	*fakeZone
	check func(challengeType string, names []string) error
}

func (s checkedSolver) Check(challengeType string, names []string) error {
	return s.check(challengeType, names)
}

func TestSolversSayWhatTheyCannotDo(t *testing.T) {
	noProvider := func(string, []string) error { return &ConfigError{Field: "Provider", Err: errors.New("is nil")} }
	otherZone := func(_ string, names []string) error {
		if slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, "example.org") }) {
			return &ConfigError{Field: "Zone", Err: fmt.Errorf("is no suffix of %q", names)}
		}
		return nil
	}
	panics := func(string, []string) error { panic("no") }
	for name, row := range map[string]struct {
		check         func(string, []string) error
		inNew, inName string // fields
	}{
		"provider": {noProvider, `Config.Issuers[0].Solvers["dns-01"].Provider`, ""},
		"zone":     {otherZone, "", `ACME.Solvers["dns-01"].Zone`},
		"panics":   {panics, `Config.Issuers[0].Solvers["dns-01"]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conf := newDNS(t, checkedSolver{&fakeZone{}, row.check})
			m, err := New(conf)
			var ce *ConfigError
			if row.inNew != "" {
				if !errors.As(err, &ce) || ce.Field != row.inNew {
					t.Errorf("New = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeManager(t, m)
			if err := m.ManageAsync([]string{"*.example.com"}); !errors.As(err, &ce) || ce.Field != "names[0]" || !strings.Contains(err.Error(), row.inName) {
				t.Errorf("ManageAsync = %v", err)
			}
			// Another type is there for what is no wildcard.
			if err := m.ManageAsync([]string{"example.com", "*.example.org"}); err != nil {
				t.Error(err)
			}
		})
	}
}

// newPersistent returns a CA that says by which names it goes in DNS records.
func newPersistent(t *testing.T, domains ...any) Config {
	t.Helper()
	ca, conf := newFake(t, fakeca.Options{})
	ca.On(fakeca.Rule{Endpoint: "directory", Mutate: func(_ *fakeca.Request, m map[string]any) {
		m["meta"] = map[string]any{"caaIdentities": domains}
	}})
	return conf
}

func TestPersistRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := newPersistent(t, "ca.example")
		m := start(t, conf)
		for name, want := range map[string]string{"Example.com.": "", "*.example.com": "; policy=wildcard"} {
			got, err := m.PersistRecords(t.Context(), name)
			if err != nil || len(got) != 1 {
				t.Fatalf("%s: %v, %v", name, got, err)
			}
			account, ok := strings.CutPrefix(got[0].Value, "ca.example; accounturi=https://")
			if !ok || !strings.HasSuffix(account, want) || got[0].Name != "_validation-persist.example.com" {
				t.Errorf("%s: %v", name, got)
			}
		}
		var ce *ConfigError
		for _, name := range []string{"", "192.0.2.1", "a..b"} {
			if got, err := m.PersistRecords(t.Context(), name); !errors.As(err, &ce) || got != nil {
				t.Errorf("%q: %v, %v", name, got, err)
			}
		}
		closeManager(t, m)
		if _, err := m.PersistRecords(t.Context(), "example.com"); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// What one of the issuers cannot tell does not take away what another can.
func TestPersistRecordsOfSeveralIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := newPersistent(t, "ca.example")
		down := &ACME{Directory: "https://down.test/dir", HTTPClient: &http.Client{Transport: nobody{}}}
		conf.Issuers = append(conf.Issuers, down, newFakeSigner(t))
		m := start(t, conf)
		got, err := m.PersistRecords(t.Context(), "example.com")
		if len(got) != 1 || err == nil || !strings.Contains(err.Error(), "down.test") {
			t.Errorf("%v, %v", got, err)
		}
		nameless := start(t, newPersistent(t))
		if got, err := nameless.PersistRecords(t.Context(), "example.com"); got != nil || err == nil || !strings.Contains(err.Error(), "caaIdentities") {
			t.Errorf("%v, %v", got, err)
		}
		conf.Issuers = []Issuer{newFakeSigner(t)}
		if got, err := start(t, conf).PersistRecords(t.Context(), "example.com"); got != nil || err == nil || !strings.Contains(err.Error(), "*ACME") {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// nobody is a network on which nobody answers.
type nobody struct{}

func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// A CA that hangs keeps neither the caller of PersistRecords nor Close waiting.
func TestPersistRecordsEndsWithItsContextAndTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "directory", Hang: true})
		m := start(t, conf)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.PersistRecords(ctx, "example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := m.PersistRecords(t.Context(), "example.com")
			ended <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		closeManager(t, m)
		if err := <-ended; err == nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
