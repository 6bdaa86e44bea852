package certwright_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// A certificate that clients refuse without a staple does not replace one that they
// accept before it has its own. (F30; RFC 7633)
func TestMustStapleIsServedWithAStaple(t *testing.T) {
	const name = "a.example.com"
	for _, tt := range []struct {
		name  string
		must  bool // the first too
		after func(*ocsp.Response) error
		lasts time.Duration
	}{
		{"it does not know it for minutes", true, sayUnknown, 5 * time.Minute},
		{"it does not know it for hours", true, sayUnknown, 3 * time.Hour},
		{"it fails for two days", true, sayNothing, 2 * day},
		{"it hangs for a day", true, sayLate, day},
		{"it fails for four days, and the first need not be stapled", false, sayNothing, 4 * day},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", tt.name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, r := stapling(t)
					mem := storage.NewMemory()
					m := startStapling(t, f, r, mem)
					spec := Spec{Names: []string{name}, MustStaple: tt.must}
					if err := m.Manage(t.Context(), spec); err != nil {
						t.Fatal(err)
					}
					first := mustLeaf(t, m, name)
					time.Sleep(time.Hour)
					r.set(tt.after)
					spec.MustStaple = true
					if err := m.Manage(t.Context(), spec); err != nil {
						t.Fatal(err)
					}
					if err := m.Renew(t.Context(), name); err != nil {
						t.Fatal(err)
					}
					for began, restarted := time.Now(), false; time.Since(began) < tt.lasts; time.Sleep(tt.lasts / 100) {
						if !restarted && restart && time.Since(began) > tt.lasts/2 {
							closeManager(t, m)
							m = startStapling(t, f, r, mem)
							if err := m.Manage(t.Context(), spec); err != nil {
								t.Fatal(err)
							}
							restarted = true
						}
						s := stapleFor(t, m, f, name)
						if leaf := mustLeaf(t, m, name); !leaf.Equal(first) || tt.must && s == nil {
							t.Fatalf("after %v the first is served: %v, with a staple: %v", time.Since(began), leaf.Equal(first), s != nil)
						}
					}
					r.set(nil)
					time.Sleep(time.Hour)
					if stapleFor(t, m, f, name) == nil || mustLeaf(t, m, name).Equal(first) {
						t.Errorf("the new one has no staple, or is not served: %+v", statusFor(t, m, name))
					}
					r.set(sayNothing)
					closeManager(t, m)
					m = startStapling(t, f, r, mem)
					if err := m.Manage(t.Context(), spec); err != nil {
						t.Fatal(err)
					}
					if stapleFor(t, m, f, name) == nil || mustLeaf(t, m, name).Equal(first) {
						t.Error("after another start the new one has no staple, or is not served")
					}
					if f.count() != 2 {
						t.Errorf("%d orders", f.count())
					}
				})
			})
		}
	}
}

// A certificate that waits for its time with a staple is replaced by another, which
// has none. (F30)
func TestStapleIsNotAnothers(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		f, r := stapling(t)
		m := startStapling(t, f, r, storage.NewMemory())
		spec := Spec{Names: []string{name}, MustStaple: true}
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		f.set(func() {
			f.validity = func() (time.Time, time.Time) { return time.Now().Add(time.Hour), time.Now().Add(90 * day) }
		})
		if err := m.Renew(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		f.set(func() { f.validity = nil })
		r.set(sayUnknown)
		if err := m.Renew(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for range 24 {
			if stapleFor(t, m, f, name) == nil {
				t.Fatal("there is no staple")
			}
			time.Sleep(10 * time.Minute)
		}
		r.set(nil)
		time.Sleep(time.Hour)
		if leaf := mustLeaf(t, m, name); stapleFor(t, m, f, name) == nil || leaf.SerialNumber.Int64() != 4 {
			t.Errorf("served is %v: %+v", leaf.SerialNumber, statusFor(t, m, name))
		}
	})
}

// Once the served one is good no more there is nothing to wait for. (F30)
func TestMustStapleDoesNotWaitForEver(t *testing.T) {
	const name = "a.example.com"
	for what, after := range map[string]func(*ocsp.Response) error{
		"its staple has ended": sayNothing,
		"it is revoked": func(r *ocsp.Response) error {
			if r.SerialNumber.Int64() != 2 { // the first
				return errors.New("down")
			}
			r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, r.ThisUpdate, ocsp.KeyCompromise
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := stapling(t)
				m := startStapling(t, f, r, storage.NewMemory())
				if err := m.Manage(t.Context(), Spec{Names: []string{name}, MustStaple: true}); err != nil {
					t.Fatal(err)
				}
				first := mustLeaf(t, m, name)
				synctest.Wait()
				r.set(after)
				if what == "its staple has ended" {
					if err := m.Renew(t.Context(), name); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(4*day + time.Minute)
				if mustLeaf(t, m, name).Equal(first) || f.count() != 2 {
					t.Errorf("the first is served: %v; %d orders", mustLeaf(t, m, name).Equal(first), f.count())
				}
			})
		})
	}
}
