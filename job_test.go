package certwright

import (
	"context"
	"crypto/x509"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/revocation"
)

// A field that isZero forgets would be lost between two runs.
func TestRareIsZero(t *testing.T) {
	if r := (rare{}); !r.isZero() {
		t.Fatal("the zero value is not zero")
	}
	values := map[string]any{
		"state": stateRecord{Attempts: 1}, "reported": time.Unix(1, 0), "panics": 1, "troubles": 1,
		"staple": &revocation.Staple{}, "stapleAt": time.Unix(1, 0), "newer": map[string]bool{"k": true},
		"slot": time.Unix(1, 0), "unsaved": &orderRecord{}, "explanation": "why", "other": &bundle{},
	}
	set := map[string]func(*rare){
		"state":       func(r *rare) { r.state = values["state"].(stateRecord) },
		"reported":    func(r *rare) { r.reported = values["reported"].(time.Time) },
		"panics":      func(r *rare) { r.panics = 1 },
		"troubles":    func(r *rare) { r.troubles = 1 },
		"staple":      func(r *rare) { r.staple = values["staple"].(*revocation.Staple) },
		"stapleAt":    func(r *rare) { r.stapleAt = values["stapleAt"].(time.Time) },
		"newer":       func(r *rare) { r.newer = values["newer"].(map[string]bool) },
		"slot":        func(r *rare) { r.slot = values["slot"].(time.Time) },
		"unsaved":     func(r *rare) { r.unsaved = values["unsaved"].(*orderRecord) },
		"explanation": func(r *rare) { r.explanation = "why" },
		"other":       func(r *rare) { r.other = &bundle{} },
	}
	typ := reflect.TypeFor[rare]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		f := set[name]
		if f == nil {
			t.Errorf("no case for the field %s", name)
			continue
		}
		var r rare
		if f(&r); r.isZero() {
			t.Errorf("one with %s counts as zero", name)
		}
	}
	typ = reflect.TypeFor[stateRecord]()
	for i := range typ.NumField() {
		var s stateRecord
		switch v := reflect.ValueOf(&s).Elem().Field(i); v.Interface().(type) {
		case string:
			v.SetString("x")
		case int:
			v.SetInt(1)
		case time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
		default:
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("ca"), reflect.Zero(v.Type().Elem()))
		}
		if s.isZero() {
			t.Errorf("one with %s counts as zero", typ.Field(i).Name)
		}
	}
}

// TestJobRoundTrip has everything that a job knows of itself survive from one
// run to the next.
func TestJobRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		synctest.Wait()
		c := m.entry("a.example.com")
		j := c.open()
		if j.bundle == nil || j.served == nil || !j.loaded || j.window.start.IsZero() || j.ari.Refresh.IsZero() {
			t.Fatalf("a job that has all of it: %+v", j)
		}
		j.state = stateRecord{ID: "a.example.com", Attempts: 3, Error: "why"}
		j.newer, j.unsaved, j.slot = map[string]bool{"k": true}, &orderRecord{Key: "k"}, time.Unix(5, 0)
		j.staple, j.stapleAt, j.stapled = &revocation.Staple{}, time.Unix(6, 0), true
		j.panics, j.troubles, j.reported = 1, 2, time.Unix(7, 0)
		j.expired, j.kept, j.revoked, j.ari.ExplanationURL = true, true, true, "https://ca.example/why"
		j.next, j.nextAt = stepExpire, time.Unix(8, 0)
		j.keep()
		back := c.open()
		j.explanation, j.other, j.ari.Serial = back.explanation, back.other, "" // are elsewhere
		if a, b := fmt.Sprintf("%+v", *j), fmt.Sprintf("%+v", *back); a != b {
			t.Errorf("kept\n%s\nfound\n%s", a, b)
		}
	})
}

// informing is a signer that suggests windows.
type informing struct {
	*fakeSigner
	info func() (RenewalInfo, error)
}

func (i *informing) RenewalInfo(context.Context, *x509.Certificate) (RenewalInfo, error) {
	return i.info()
}

// TestWindowStays has the window stay that a CA suggested before it said that it
// has none.
func TestWindowStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		asked := 0
		iss := &informing{newFakeSigner(t), func() (RenewalInfo, error) {
			if asked++; asked > 1 {
				return RenewalInfo{}, ErrNoRenewalInfo
			}
			return RenewalInfo{Start: begin.Add(10 * day), End: begin.Add(11 * day)}, nil
		}}
		m := offline(t, iss.fakeSigner, func(c *Config) { c.Issuers, c.DisableRenewalInfo = []Issuer{iss}, false })
		manage(t, m, "a.example.com")
		synctest.Wait()
		before := statusFor(t, m, "a.example.com")
		time.Sleep(3 * day)
		after := statusFor(t, m, "a.example.com")
		if asked < 2 || before.WindowStart.IsZero() || !after.WindowStart.Equal(before.WindowStart) || !after.RenewAt.Equal(before.RenewAt) {
			t.Errorf("asked %d times; before %v and %v, after %v and %v", asked, before.WindowStart, before.RenewAt, after.WindowStart, after.RenewAt)
		}
	})
}
