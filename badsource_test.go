package certwright_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/adopt"
)

// badSource is an adopt.Source that does not do what it should.
type badSource func()

func (badSource) String() string { return "a bad source" }

func (s badSource) Find(context.Context, []string) ([]adopt.Pair, error) {
	s()
	return nil, nil
}

func (s badSource) Account(context.Context, string) (*adopt.Account, error) {
	s()
	return nil, nil
}

// A source that is of no use keeps no name from its certificate.
func TestSourceOfNoUseIsGoneWithout(t *testing.T) {
	back := make(chan struct{})
	for what, does := range map[string]func(){
		"panics": func() { panic("not today") },
		"exits":  runtime.Goexit,
		"hangs":  func() { <-back },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				back = make(chan struct{})
				f := newFakeSigner(t)
				m := offline(t, f, func(c *Config) { c.Adopt = []adopt.Source{badSource(does)} })
				names := manyNames(50)
				if err := m.ManageAsync(names); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Minute)
				if n := served(m, names); n != len(names) {
					t.Errorf("%d of %d names have a certificate after half an hour", n, len(names))
				}
				close(back)
				synctest.Wait()
			})
		})
	}
}
