package certwright_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// TestManageSyncDoesNotWaitForADueRenewal starts on a certificate that is due and
// good for 25 days more, while the CA hangs or another instance holds the lease:
// who waits is told at once, and the renewal goes on behind. (F6)
func TestManageSyncDoesNotWaitForADueRenewal(t *testing.T) {
	const name = "a.example.com"
	for _, what := range []string{"CA hangs", "lease is held"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				m := startAlone(t, conf)
				manage(t, m, name)
				first := mustLeaf(t, m, name)
				closeManager(t, m)
				time.Sleep(65 * day)
				var free func()
				if what == "CA hangs" {
					free = ca.On(fakeca.Rule{Hang: true})
				} else {
					lease, err := conf.Storage.(*storage.Memory).Lock(t.Context(), records.IssueLock(records.ID([]string{name}, "")))
					if err != nil {
						t.Fatal(err)
					}
					free = func() { _ = lease.Unlock(context.Background()) }
				}
				m = startAlone(t, conf)
				began := time.Now()
				manage(t, m, name)
				if took := time.Since(began); took > time.Second {
					t.Errorf("ManageSync took %v with a good certificate in storage", took)
				}
				if !mustLeaf(t, m, name).Equal(first) {
					t.Error("another certificate is served")
				}
				time.Sleep(time.Minute)
				if s := statusFor(t, m, name); s.Doing == "" && s.LastError == "" && s.NextAction == "" {
					t.Errorf("nothing is done about the renewal: %+v", s)
				}
				free()
				time.Sleep(2 * time.Hour)
				if mustLeaf(t, m, name).Equal(first) {
					t.Errorf("not renewed: %+v", statusFor(t, m, name))
				}
			})
		})
	}
}
