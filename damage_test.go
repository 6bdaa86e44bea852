package certwright_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

const responder = "http://ocsp.test"

// fakeResponder answers OCSP requests for the certificates of a CA.
type fakeResponder struct{ ca *fakeca.CA }

func (f fakeResponder) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost {
		return &http.Response{StatusCode: http.StatusMethodNotAllowed, Body: http.NoBody, Request: r}, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(body)
	if err != nil {
		return nil, err
	}
	cert, key := f.ca.Intermediate()
	now := time.Now().Truncate(time.Second)
	answer, err := ocsp.CreateResponse(cert, cert, ocsp.Response{
		Status: ocsp.Good, SerialNumber: req.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(7 * day),
	}, key)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/ocsp-response"}},
		Body: io.NopCloser(bytes.NewReader(answer)), Request: r,
	}, nil
}

// recordRig is a store with a record of every kind for a.test, and what a
// Manager said about it.
type recordRig struct {
	t    *testing.T
	ca   *fakeca.CA
	conf Config
	mem  *storage.Memory
	said *said
}

func newRecordRig(t *testing.T) *recordRig {
	r := &recordRig{t: t, said: new(said)}
	r.ca, r.conf = newFake(t, fakeca.Options{OCSPURL: responder})
	r.mem = r.conf.Storage.(*storage.Memory)
	r.conf.CleanInterval = -1
	return r
}

// start is a Manager that asks the CA's responder.
func (r *recordRig) start() *Manager {
	r.t.Helper()
	r.conf.Logger, r.said.logs = observed(slog.LevelDebug)
	r.conf.OnEvent = r.said.event
	m := start(r.t, r.conf)
	m.ocspClient.Transport = fakeResponder{r.ca}
	return m
}

// fill brings a.test and b.test to where they have the record of that kind, and
// returns its key for either.
func (r *recordRig) fill(kind string) (a, b string) {
	r.t.Helper()
	m := r.start()
	names := []string{"a.test", "b.test"}
	if kind == kindOrder || kind == kindState {
		defer r.ca.On(fakeca.Rule{Endpoint: "finalize", Status: http.StatusInternalServerError})()
		if m.ManageSync(r.t.Context(), names) == nil {
			r.t.Fatal("issued although the CA refuses")
		}
	} else {
		manage(r.t, m, names...)
	}
	synctest.Wait()
	closeManager(r.t, m)
	id := r.conf.Issuers[0].ID()
	switch kind {
	case kindCertificate:
		return storageKey(keyCerts, id, "a.test"), storageKey(keyCerts, id, "b.test")
	case kindAccount:
		key := storageKey(keyAccounts, id, "account")
		return key, key
	}
	prefix := map[string]string{kindOrder: keyOrders, kindState: keyState, kindStaple: keyStaples, kindRenewalInfo: keyRenewalInfo}[kind]
	return prefix + "/a.test", prefix + "/b.test"
}

// damage is what becomes of a record's value. other is the value of another
// name's record of the same kind.
type damage struct {
	name string
	do   func(value, other []byte) []byte
	want outcome
}

type outcome int

const (
	reported outcome = iota // an error names the key, and the record is made anew
	silent                  // it is good, or seen to be another's without a word
	leftHere                // an error names the key, and the record stays as it is
)

var damages = []damage{
	{"truncated", func(v, _ []byte) []byte { return v[:len(v)/2] }, reported},
	{"one byte short", func(v, _ []byte) []byte { return v[:len(v)-2] }, reported},
	{"empty", func(_, _ []byte) []byte { return nil }, reported},
	{"bit", func(v, _ []byte) []byte { w := bytes.Clone(v); w[len(w)-9] ^= 1; return w }, reported},
	{"HTML", func(_, _ []byte) []byte { return []byte("<html><h1>502 Bad Gateway</h1></html>") }, reported},
	{"other kind", func(_, _ []byte) []byte { return []byte(`{"v":1,"kind":"x","sum":"","body":{}}`) }, reported},
	{"giant", func(v, _ []byte) []byte { return append(bytes.Clone(v), bytes.Repeat([]byte(" "), 1<<20)...) }, reported},
	{"swapped", func(_, other []byte) []byte { return other }, reported},
	{"CRLF", func(v, _ []byte) []byte {
		return bytes.ReplaceAll(bytes.ReplaceAll(v, []byte(",\""), []byte(",\r\n\"")), []byte("}\n"), []byte("}\r\n"))
	}, silent},
	{"newer", func(_, _ []byte) []byte { return []byte(`{"v":2,"sealed":"..."}`) }, leftHere},
}

// Whatever a record holds, the other names go on, an error names its key, and
// the name is healed; what a newer version wrote stays.
func TestDamagedRecords(t *testing.T) {
	for _, kind := range []string{kindCertificate, kindAccount, kindOrder, kindState, kindStaple, kindRenewalInfo} {
		for _, d := range damages {
			if kind == kindAccount && d.name == "swapped" {
				continue // there is one; see TestAccountOfAnotherCA
			}
			t.Run(kind+"/"+d.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { damageRecord(t, kind, d) })
			})
		}
	}
}

func damageRecord(t *testing.T, kind string, d damage) {
	r := newRecordRig(t)
	key, otherKey := r.fill(kind)
	value, err := r.mem.Load(t.Context(), key)
	other, otherErr := r.mem.Load(t.Context(), otherKey)
	if err := errors.Join(err, otherErr); err != nil {
		t.Fatal(err)
	}
	bad := d.do(value, other)
	mustStore(t, r.mem, key, bad)
	_ = r.mem.Delete(t.Context(), storageKey(keyState, "b.test")) // b.test is due at once
	m := r.start()
	r.said.add(m.ManageSync(t.Context(), []string{"b.test", "c.test", "a.test"}))
	time.Sleep(2 * time.Hour)
	blocks := d.want == leftHere && (kind == kindCertificate || kind == kindOrder || kind == kindState)
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		// Without its account no name without a certificate gets one.
		missing := blocks && name == "a.test" || kind == kindAccount && d.want == leftHere && name == "c.test"
		if (leafOf(m, name) == nil) != missing {
			t.Errorf("%s: served %v; %v", name, !missing, statusFor(t, m, name))
		}
	}
	after, err := r.mem.Load(t.Context(), key)
	switch d.want {
	case silent:
		if r.said.has(key) {
			t.Errorf("an error speaks of %q: %q", key, r.said.texts())
		}
	case reported:
		quiet := d.name == "swapped" && (kind == kindOrder || kind == kindStaple || kind == kindRenewalInfo)
		if !quiet && !r.said.has(key) {
			t.Errorf("no error speaks of %q: %q", key, r.said.texts())
		}
		if kind == kindOrder || kind == kindState { // done with
			if err == nil {
				t.Errorf("%q is still there", key)
			}
		} else if bytes.Equal(after, bad) {
			t.Errorf("%q is as bad as before", key)
		}
	case leftHere:
		if !bytes.Equal(after, bad) {
			t.Errorf("%q was overwritten", key)
		}
		if !r.said.has(key) {
			t.Errorf("no error speaks of %q: %q", key, r.said.texts())
		}
	}
	if blocks {
		if s := statusFor(t, m, "a.test"); !strings.Contains(s.LastError, key) || s.State != StateMissing {
			t.Errorf("the status does not say why: %v", s)
		}
	}
}

// A key that belongs to another CA's account is not sent there with that URL.
func TestAccountOfAnotherCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecordRig(t)
		key, _ := r.fill(kindAccount)
		value := mustLoad(t, r.mem, key)
		var a acmeflow.AccountRecord
		if err := record.Decode(kindAccount, value, &a); err != nil {
			t.Fatal(err)
		}
		a.Directory, a.Location = "https://other.test/directory", "https://other.test/account/1"
		mustStore(t, r.mem, key, mustEncode(t, kindAccount, a))
		manage(t, r.start(), "c.test")
		for _, req := range r.ca.Requests("") {
			if strings.Contains(req.Kid, "other.test") {
				t.Errorf("%s was signed as %s", req.URL, req.Kid)
			}
		}
		if err := record.Decode(kindAccount, mustLoad(t, r.mem, key), &a); err != nil || a.Directory != r.ca.Directory() || r.ca.Accounts() != 1 {
			t.Errorf("%v: %+v; %d accounts", err, a.Directory, r.ca.Accounts())
		}
	})
}

// S23: an account record that lacks what it should have, or has what it should
// not, is one that is not registered.
func TestS23_DamagedAccount(t *testing.T) {
	tests := map[string]func(*acmeflow.AccountRecord){
		"no URL": func(a *acmeflow.AccountRecord) { a.Location = "" },
		"no key": func(a *acmeflow.AccountRecord) { a.KeyPEM = "" },
		"wrong key": func(a *acmeflow.AccountRecord) {
			a.KeyPEM = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"
		},
		"no directory":  func(a *acmeflow.AccountRecord) { a.Directory = "" },
		"URL elsewhere": func(a *acmeflow.AccountRecord) { a.Location = "https://elsewhere.test/1" },
		"nothing":       func(a *acmeflow.AccountRecord) { *a = acmeflow.AccountRecord{} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecordRig(t)
				key, _ := r.fill(kindAccount)
				var a acmeflow.AccountRecord
				if err := record.Decode(kindAccount, mustLoad(t, r.mem, key), &a); err != nil {
					t.Fatal(err)
				}
				sameKey := name == "no URL" || name == "no directory" || name == "URL elsewhere"
				spoil(&a)
				mustStore(t, r.mem, key, mustEncode(t, kindAccount, a))
				manage(t, r.start(), "c.test", "d.test")
				want := 2
				if sameKey {
					want = 1
				}
				if got := r.ca.Accounts(); got != want {
					t.Errorf("%d accounts, want %d", got, want)
				}
			})
		})
	}
}

// body is something that holds the record of one kind.
func bodyOf(kind string) any {
	switch kind {
	case kindCertificate:
		return new(certRecord)
	case kindAccount:
		return new(acmeflow.AccountRecord)
	case kindOrder:
		return new(orderRecord)
	case kindState:
		return new(stateRecord)
	case kindStaple:
		return new(stapleRecord)
	case kindRenewalInfo:
		return new(ariRecord)
	case kindCleaned:
		return new(cleanedRecord)
	}
	return nil
}

// Each bit of a record of each kind, flipped alone, is either found out or
// changes nothing that is read.
func TestFlippedBits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []string{kindCertificate, kindAccount, kindOrder, kindState, kindStaple, kindRenewalInfo} {
			r := newRecordRig(t)
			key, _ := r.fill(kind)
			value := mustLoad(t, r.mem, key)
			good := bodyOf(kind)
			if err := record.Decode(kind, value, good); err != nil {
				t.Fatal(err)
			}
			for i := range value {
				for bit := range 8 {
					flipped := bytes.Clone(value)
					flipped[i] ^= 1 << bit
					got := bodyOf(kind)
					err := record.Decode(kind, flipped, got)
					if err == nil && !reflect.DeepEqual(got, good) {
						t.Errorf("%s: bit %d of byte %d (%q) flipped is read as another record", kind, bit, i, value[i])
					}
					if err != nil && !errors.Is(err, record.ErrDamaged) && !errors.Is(err, record.ErrNewer) {
						t.Errorf("%s: bit %d of byte %d: %v", kind, bit, i, err)
					}
				}
			}
		}
	})
}

// A challenge that is damaged in storage, or another's, answers nobody.
func TestDamagedChallenges(t *testing.T) {
	ctx, mem := t.Context(), storage.NewMemory()
	table := challenge.New(mem, keyChallenges, challengeCert)
	ch := challenge.Challenge{Type: challenge.HTTP01, Identifier: "a.test", Token: "tok", KeyAuthorization: "tok.thumb"}
	alpn := ch
	alpn.Type = challenge.TLSALPN01
	for _, c := range []challenge.Challenge{ch, alpn} {
		if err := table.Present(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	other := challenge.New(mem, keyChallenges, challengeCert) // of another instance
	key, alpnKey := "v1/challenges/http-01/a.test/tok", "v1/challenges/tls-alpn-01/a.test/tok"
	value, alpnValue := mustLoad(t, mem, key), mustLoad(t, mem, alpnKey)
	swapped := func(v []byte) []byte {
		var c challenge.Challenge
		if err := json.Unmarshal(v, &c); err != nil {
			t.Fatal(err)
		}
		c.Identifier, c.Token = "b.test", "other"
		out, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, d := range damages {
		if d.name == "bit" || d.name == "giant" || d.name == "CRLF" {
			continue // there is no sum: what can be read is taken
		}
		mustStore(t, mem, key, d.do(value, swapped(value)))
		mustStore(t, mem, alpnKey, d.do(alpnValue, swapped(alpnValue)))
		if got, ok := other.KeyAuthorization(ctx, "a.test", "tok"); ok {
			t.Errorf("%s: answered %q", d.name, got)
		}
		if _, err := other.Certificate(ctx, "a.test"); err == nil {
			t.Errorf("%s: answered with a certificate", d.name)
		}
	}
	mustStore(t, mem, key, append(value, '\r', '\n'))
	if got, ok := other.KeyAuthorization(ctx, "a.test", "tok"); !ok || got != "tok.thumb" {
		t.Errorf("a good one: %q, %v", got, ok)
	}
}

func mustLoad(t *testing.T, s Storage, key string) []byte {
	t.Helper()
	value, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
