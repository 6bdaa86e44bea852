package acmeflow

import (
	"net/http"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestPoll_Pace(t *testing.T) {
	const ms = time.Millisecond
	p := newPoll()
	for i, want := range []time.Duration{ms, 3 * ms, 9 * ms, 27 * ms, 81 * ms, 243 * ms, 364500 * time.Microsecond} {
		if p.pause != want {
			t.Errorf("pause %d is %v, want %v", i, p.pause, want)
		}
		p.next(0)
	}
	for range 20 {
		p.next(0)
	}
	if p.pause != slowestPoll {
		t.Errorf("it slows down to %v, want %v", p.pause, slowestPoll)
	}
	for _, row := range []struct{ asked, want time.Duration }{
		{time.Second, time.Second}, {time.Hour, longestAsked}, {longestAsked, longestAsked},
	} {
		if p.next(row.asked); p.pause != row.want {
			t.Errorf("asked for %v it waits %v, want %v", row.asked, p.pause, row.want)
		}
	}
	if p = new(poll); p.pause != 0 {
		t.Errorf("the first pause of a poll that begins at once is %v", p.pause)
	}
	if p.next(0); p.pause != firstPoll {
		t.Errorf("and the second one is %v, want %v", p.pause, firstPoll)
	}
}

// A Retry-After in the reply to the challenge or to the finalize request holds
// back the first look, which else is soon.
func TestPoll_FirstLook(t *testing.T) {
	for _, row := range []struct {
		endpoint, look string // the reply and the look that follows it
		asked          string
		want           time.Duration
	}{
		{"challenge", "authz", "", firstPoll},
		{"challenge", "authz", "2", 2 * time.Second},
		{"challenge", "authz", "86400", longestAsked},
		{"finalize", "order", "", 0},
		{"finalize", "order", "3", 3 * time.Second},
		{"finalize", "order", "86400", longestAsked},
	} {
		t.Run(row.endpoint+" "+row.asked, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				if row.asked != "" {
					e.ca.On(fakeca.Rule{Endpoint: row.endpoint, Header: http.Header{"Retry-After": {row.asked}}})
				}
				e.issue(t, "example.com")
				answered := e.ca.Requests(row.endpoint)[0].Time
				looks := e.ca.Requests(row.look)
				if row.look == "authz" {
					looks = looks[1:] // the first one is before the challenge
				}
				if got := looks[0].Time.Sub(answered); got != row.want {
					t.Errorf("the first look comes after %v, want %v", got, row.want)
				}
			})
		})
	}
}
