package certwright_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestUnmanage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		manage(t, m, "a.example.com", "b.example.com")
		if err := m.Unmanage("A.Example.com."); err != nil {
			t.Fatal(err)
		}
		if leafOf(m, "a.example.com") != nil {
			t.Error("a name that is not managed any more is served")
		}
		if err := m.Unmanage("a.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("a second Unmanage = %v; want ErrNotManaged", err)
		}
		if err := m.Renew(t.Context(), "a.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("Renew = %v; want ErrNotManaged", err)
		}
		time.Sleep(90 * day)
		for _, o := range ca.Orders()[2:] {
			if o.Identifiers[0].Value == "a.example.com" {
				t.Errorf("an order at %v for a name that is not managed", o.Created)
			}
		}
		if n := ca.Count("newOrder"); n != 3 {
			t.Errorf("%d orders; want 3: two at first, and one renewal", n)
		}
	})
}

// The name's order hangs, or it waits out a back-off.
func TestUnmanageDuringAnIssue(t *testing.T) {
	for name, rule := range map[string]fakeca.Rule{
		"hanging":   {Endpoint: "newOrder", Hang: true},
		"backedOff": {Endpoint: "newOrder", Problem: fakeca.RateLimited(time.Hour, "slow down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				ca.On(rule)
				m := start(t, conf)
				told := make(chan error, 1)
				go func() { told <- m.ManageSync(t.Context(), []string{"a.example.com"}) }()
				time.Sleep(5 * time.Second)
				began := time.Now()
				if err := m.Unmanage("a.example.com"); err != nil {
					t.Fatal(err)
				}
				err := <-told
				if name == "hanging" && !errors.Is(err, ErrNotManaged) {
					t.Errorf("ManageSync = %v; want ErrNotManaged", err)
				}
				if d := time.Since(began); d >= time.Second {
					t.Errorf("Unmanage took %v", d)
				}
				time.Sleep(90 * day)
				if n := ca.Count("newOrder"); n != 1 {
					t.Errorf("%d orders", n)
				}
				if n := len(m.Status()); n != 0 {
					t.Errorf("%d names in the status", n)
				}
			})
		})
	}
}
