package acmeflow

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

// leavesUndecided has the CA look at challenges of a type, find nothing, and leave
// them in a status with its reason.
func leavesUndecided(e *env, challengeType, status, detail string) {
	e.ca.On(fakeca.Rule{Endpoint: "challenge", When: func(r *fakeca.Request) bool {
		return slices.Contains(e.solver.types(), challengeType) && e.solver.types()[len(e.solver.types())-1] == challengeType
	}, Mutate: nil, Status: 200, Body: []byte(`{"status":"pending"}`), ContentType: "application/json"})
	e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
		for _, c := range m["challenges"].([]any) {
			if c := c.(map[string]any); c["type"] == challengeType && m["status"] == "pending" && slices.Contains(e.solver.types(), challengeType) {
				c["status"], c["error"] = status, map[string]any{"type": "urn:ietf:params:acme:error:connection", "detail": detail}
			}
		}
	}})
}

// F20: the CA's interim words are told at once, and the other type is tried. One
// that has set the challenge back to pending is asked to look again first.
func TestChallengeLeftUndecidedWithAnError(t *testing.T) {
	for status, row := range map[string]struct {
		patience time.Duration
		asked    int // for http-01
	}{
		"pending":    {pendingTime, 3},
		"processing": {interimTime, 1},
	} {
		t.Run(status, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				leavesUndecided(e, "http-01", status, "no route to 192.0.2.1")
				req := e.request(t, "example.com")
				began := time.Now()
				var told time.Duration
				req.Progress = func(_, detail string) {
					if told == 0 && strings.Contains(detail, "no route to 192.0.2.1") {
						told = time.Since(began)
					}
				}
				res, err := e.client.Issue(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if told == 0 || told > time.Second {
					t.Errorf("the CA's words were told after %v", told)
				}
				if took := time.Since(began); took < row.patience || took > row.patience+10*time.Second {
					t.Errorf("the other type was tried after %v", took)
				}
				if got := e.solver.types(); !slices.Equal(got, []string{"http-01", "tls-alpn-01"}) || !slices.Equal(res.Failed["example.com"], []string{"http-01"}) {
					t.Errorf("tried %v, failed %v", got, res.Failed)
				}
				e.wantCount(t, "newOrder", 1)
				e.wantCount(t, "challenge", row.asked+1)
				e.solver.checkClean(t)
			})
		})
	}
	t.Run("no other type", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
			leavesUndecided(e, "http-01", "pending", "no route to 192.0.2.1")
			began := time.Now()
			if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), "no route to 192.0.2.1") || err.Gone {
				t.Errorf("error: %v", err)
			}
			if took := time.Since(began); took < interimTime || took > interimTime+10*time.Second {
				t.Errorf("it was given up after %v", took)
			}
			e.wantCount(t, "challenge", 5)
		})
	})
}

// F20, F33: step-ca leaves an authorization pending whose challenge it has decided
// against us, and looks at that one never again: an order with it is of no use.
func TestChallengeInvalidInAPendingAuthorization(t *testing.T) {
	for name, offered := range map[string][]string{"another type": {"http-01", "tls-alpn-01"}, "no other type": {"http-01"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Challenges: offered})
				leavesUndecided(e, "http-01", "invalid", "another server answered")
				began := time.Now()
				if len(offered) > 1 {
					e.issue(t, "example.com")
					e.wantCount(t, "newOrder", 2)
				} else {
					for range 2 {
						if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), "another server answered") || err.Validations["example.com"] != 1 {
							t.Errorf("error: %v, %v", err, err.Validations)
						}
					}
					e.wantCount(t, "newOrder", 2)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
	t.Run("before a crash", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
			ctx, cancel := context.WithCancel(t.Context())
			req := e.request(t, "example.com")
			e.solver.onPresent = func(Challenge) { cancel() }
			if _, err := e.client.Issue(ctx, req); err == nil {
				t.Fatal("issued")
			}
			e.solver.onPresent = nil
			e.ca.On(fakeca.Rule{Endpoint: "authz", N: 1, Mutate: func(_ *fakeca.Request, m map[string]any) {
				m["challenges"].([]any)[0].(map[string]any)["status"] = "invalid"
			}})
			e.issue(t, "example.com")
			e.wantCount(t, "newOrder", 2)
		})
	})
}

// A CA that looks only when it is asked to is asked again, whatever it says of it,
// and the words of a reason that are new each time do not make it last longer.
func TestChallengeLeftPendingIsAskedForAgain(t *testing.T) {
	for name, refused := range map[string]*fakeca.Problem{"": nil, "asked too often": fakeca.NewProblem("rateLimited", 429, "later")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
				e.ca.On(fakeca.Rule{Endpoint: "challenge", N: 1, Body: []byte(`{"status":"pending"}`), ContentType: "application/json"})
				if refused != nil {
					e.ca.On(fakeca.Rule{Endpoint: "challenge", N: 2, Problem: refused})
				}
				looks := 0
				e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
					if c := m["challenges"].([]any)[0].(map[string]any); c["status"] == "pending" {
						looks++
						c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:connection", "detail": fmt.Sprintf("reset by port %d", looks)}
					}
				}})
				began := time.Now()
				e.issue(t, "example.com")
				if took := time.Since(began); took < askAgain || took > 30*time.Second {
					t.Errorf("issued after %v", took)
				}
			})
		})
	}
}

// F21: a challenge is set up under the order's spelling of a name.
func TestAuthorizationsAsTheCASpellsThem(t *testing.T) {
	for _, row := range []struct {
		name, value string
		flag        bool // the CA sets wildcard
		want        string
	}{
		{"example.com", "EXAMPLE.com", false, "example.com"},
		{"example.com", "example.com.", false, "example.com"},
		{"*.example.com", "*.example.com", true, "example.com"},
		{"*.example.com", "*.Example.com", false, "example.com"},
		{"*.example.com", "example.com", false, "example.com"},
		{"xn--bcher-kva.example", "Bücher.example", false, "xn--bcher-kva.example"},
		{"*.xn--bcher-kva.example", "*.BÜCHER.example.", true, "xn--bcher-kva.example"},
		{"*.xn--bcher-kva.example", "Bücher.example", true, "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "XN--BCHER-KVA.Example.", false, "xn--bcher-kva.example"},
		{"2001:db8::7", "2001:0DB8:0:0:0:0:0:7", false, "2001:db8::7"},
		{"2001:db8::7", "[2001:DB8::0007]", false, "2001:db8::7"},
		{"192.0.2.7", "::ffff:192.0.2.7", false, "192.0.2.7"},
		{"192.0.2.7", "0:0:0:0:0:FFFF:C000:207", false, "192.0.2.7"},
		{"192.0.2.7", "192.0.2.7.", false, "192.0.2.7"},
	} {
		t.Run(row.name+" as "+row.value, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error { return nil }})
				e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
					m["identifier"].(map[string]any)["value"] = row.value
					if delete(m, "wildcard"); row.flag {
						m["wildcard"] = true
					}
				}})
				e.ca.On(fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) {
					m["identifiers"].([]any)[0].(map[string]any)["value"] = row.value
					if strings.HasPrefix(row.name, "*.") && !strings.HasPrefix(row.value, "*.") {
						m["identifiers"].([]any)[0].(map[string]any)["value"] = row.name
					}
				}})
				var got Challenge
				e.solver.onPresent = func(ch Challenge) { got = ch }
				e.issue(t, row.name)
				wild := strings.HasPrefix(row.name, "*.")
				if got.Identifier != row.want || got.Wildcard != wild || got.IdentifierType != identifier(row.want).Type {
					t.Errorf("presented %+v", got)
				}
			})
		})
	}
	for name, spell := range map[string]func(value string, wildcard bool) (string, bool){
		"stars kept":    func(v string, w bool) (string, bool) { return map[bool]string{true: "*."}[w] + v, w },
		"nothing tells": func(v string, _ bool) (string, bool) { return v, false },
		"stars, no flag": func(v string, w bool) (string, bool) {
			return map[bool]string{true: "*."}[w] + strings.ToUpper(v), false
		},
	} {
		t.Run("a name and its wildcard, "+name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Challenges: []string{"dns-01"}})
				e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
					id := m["identifier"].(map[string]any)
					id["value"], m["wildcard"] = spell(id["value"].(string), m["wildcard"] == true)
				}})
				e.issue(t, "example.com", "*.example.com")
			})
		})
	}
	for _, foreign := range []string{"other.example", "", "*", "www.example.com", "com", "example.com.evil.example"} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
				m["identifier"].(map[string]any)["value"] = foreign
			}})
			if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), fmt.Sprintf("%q", foreign)) {
				t.Errorf("error: %v", err)
			}
			e.wantCount(t, "challenge", 0)
		})
	}
}

// F23: one name can be validated by one type only, and the other name by the other.
func TestEachNameHasATypeOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		only := map[string]string{"a.example.com": "http-01", "b.example.com": "tls-alpn-01"}
		e = newEnv(t, fakeca.Options{Challenges: []string{"http-01", "tls-alpn-01"}, Validate: func(ctx context.Context, ch fakeca.ChallengeInfo) error {
			if only[ch.Identifier.Value] != ch.Type {
				return fakeca.NewProblem("connection", 400, "cannot reach "+ch.Type)
			}
			return e.solver.validate(ctx, ch)
		}})
		res := e.issue(t, "a.example.com", "b.example.com")
		want := map[string][]string{"b.example.com": {"http-01"}}
		if !maps.EqualFunc(res.Failed, want, slices.Equal) {
			t.Errorf("failed %v, want %v", res.Failed, want)
		}
		// The renewal begins with what works for each.
		e.newKey(t)
		req := e.request(t, "a.example.com", "b.example.com")
		req.Failed = res.Failed
		before := e.ca.Count("challenge")
		if _, err := e.client.Issue(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if n := e.ca.Count("challenge") - before; n != 2 {
			t.Errorf("%d validations, want 2", n)
		}
		e.solver.checkClean(t)
	})
}

// F22: all types in the first attempt for a name, one in each later one, and one
// for what no other type can mend; and the failures are counted.
func TestFailedValidationsAreFewAndCounted(t *testing.T) {
	for kind, want := range map[string][]int{"connection": {2, 1, 1, 1}, "dns": {1, 1, 1, 1}} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Challenges: []string{"http-01", "tls-alpn-01"}, Validate: func(context.Context, fakeca.ChallengeInfo) error {
					return fakeca.NewProblem(kind, 400, "no")
				}})
				var tried []string
				e.solver.onPresent = func(ch Challenge) { tried = append(tried, ch.Type) }
				for i, n := range want {
					before := e.ca.Count("challenge")
					err := e.fail(t, "example.com")
					if got := e.ca.Count("challenge") - before; got != n || err.Validations["example.com"] != n {
						t.Errorf("attempt %d: %d validations, %v counted, want %d", i, got, err.Validations, n)
					}
				}
				for i := 1; i < len(tried); i++ {
					if tried[i] == tried[i-1] {
						t.Errorf("tried %v: one type twice in a row", tried)
					}
				}
			})
		})
	}
}

// F25: only a problem document is the CA's word.
func TestProxyRefusesOnce(t *testing.T) {
	for _, endpoint := range []string{"authz", "challenge", "finalize", "order", "cert"} {
		for _, status := range []int{403, 404, 405, 407, 408} {
			t.Run(fmt.Sprint(endpoint, status), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{PollsProcessing: 1})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, Run: true, Status: status, Body: []byte("<html>proxy says no</html>"), NoNonce: true})
					e.issue(t, "example.com")
					e.wantCount(t, "newOrder", 1)
					if n := len(e.ca.Certificates()); n != 1 {
						t.Errorf("%d certificates", n)
					}
				})
			})
		}
	}
}

// F25: the same for longer than an attempt: the order is kept, and gone on with.
func TestProxyRefusesForLong(t *testing.T) {
	for _, endpoint := range []string{"authz", "challenge", "finalize", "cert"} {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				remove := e.ca.On(fakeca.Rule{Endpoint: endpoint, Run: endpoint != "finalize", Status: 403, Body: []byte("<html>proxy says no</html>")})
				err := e.fail(t, "example.com")
				if !strings.Contains(err.Error(), "proxy says no") || !strings.Contains(err.Error(), "403") || err.Gone { // F26
					t.Errorf("error: %v", err)
				}
				remove()
				e.issue(t, "example.com")
				e.wantCount(t, "newOrder", 1)
				if n := len(e.ca.Certificates()); n != 1 {
					t.Errorf("%d certificates", n)
				}
			})
		})
	}
}

// F25: a CA that finds only after a moment what it has just made.
func TestNotFoundRightAfterAWrite(t *testing.T) {
	for _, endpoint := range []string{"authz", "order", "cert"} {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, Count: 3, Problem: fakeca.NewProblem("malformed", 404, "not found")})
				e.issue(t, "example.com")
				e.wantCount(t, "newOrder", 1)
			})
		})
	}
}

// F26: whatever is answered in place of a problem document is in the error, and
// what no CA sends ends the step at once.
func TestWordsOfWhoAnswered(t *testing.T) {
	for _, row := range []struct {
		endpoint string
		status   int
		body     string
	}{
		{"newOrder", 403, `{"error":"quota of tenant 7 used up"}`},
		{"newOrder", 403, `["quota of tenant 7 used up"]`},
		{"finalize", 500, `quota of tenant 7 used up`},
		{"finalize", 502, `<html>quota of tenant 7 used up</html>`},
		{"newOrder", 200, `<html>quota of tenant 7 used up</html>`},
		{"authz", 200, `<html>quota of tenant 7 used up</html>`},
		{"challenge", 200, `<html>quota of tenant 7 used up</html>`},
		{"finalize", 200, `<html>quota of tenant 7 used up</html>`},
		{"order", 200, `<html>quota of tenant 7 used up</html>`},
		{"cert", 200, `<html>quota of tenant 7 used up</html>`},
		{"newAccount", 200, `<html>quota of tenant 7 used up</html>`},
	} {
		t.Run(fmt.Sprint(row.endpoint, row.status), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				e.ca.On(fakeca.Rule{Endpoint: row.endpoint, Status: row.status, Body: []byte(row.body)})
				began := time.Now()
				text := e.fail(t, "example.com").Error()
				if !strings.Contains(text, "quota of tenant 7 used up") || !strings.Contains(text, fmt.Sprint(row.status)) {
					t.Errorf("error: %s", text)
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// F32: a name that fails leaves no authorization pending.
func TestOtherNamesAreLetEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsBeforeValid: 3, AuthzReuse: true, Challenges: []string{"http-01"}, Validate: func(_ context.Context, ch fakeca.ChallengeInfo) error {
			if ch.Identifier.Value == "n0.example.com" {
				return fakeca.NewProblem("connection", 400, "refused")
			}
			return nil
		}})
		var names []string
		for i := range 30 {
			names = append(names, name(i))
		}
		err := e.fail(t, names...)
		if err.Identifier != "n0.example.com" || len(err.Validations) != 1 {
			t.Errorf("error: %v, %v", err, err.Validations)
		}
		e.wantCount(t, "challenge", 30)
		before := e.ca.Count("challenge")
		e.issue(t, names[1:]...)
		if n := e.ca.Count("challenge") - before; n != 0 {
			t.Errorf("%d authorizations were left pending", n)
		}
	})
}

// F32: what is no name's failure lets nothing more begin, and ends soon.
func TestRateLimitStopsTheOtherNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsBeforeValid: 1 << 20})
		e.ca.On(fakeca.Rule{Endpoint: "challenge", N: 2, Count: -1, Problem: fakeca.RateLimited(time.Hour, "slow down")})
		var names []string
		for i := range 30 {
			names = append(names, name(i))
		}
		began := time.Now()
		err := e.fail(t, names...)
		if problemType(err) != "rateLimited" || err.RetryAfter != time.Hour || len(err.Validations) != 0 {
			t.Errorf("error: %v", err)
		}
		if n := e.ca.Count("challenge"); n > maxParallelAuthz {
			t.Errorf("%d challenges", n)
		}
		if took := time.Since(began); took > 2*lingerTime {
			t.Errorf("it took %v", took)
		}
	})
}

// F33: an order that has expired, or that does not change for an hour, is not
// gone on with.
func TestOrderHasAnAge(t *testing.T) {
	t.Run("processing", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{PollsProcessing: 1 << 30})
			attempt := func() error {
				ctx, cancel := contextIn(t, 5*time.Minute)
				defer cancel()
				_, err := e.client.Issue(ctx, e.request(t, "example.com"))
				return err
			}
			var gone time.Duration
			for began := time.Now(); gone == 0 && time.Since(began) < 3*time.Hour; time.Sleep(10 * time.Minute) {
				if err := asError(attempt()); err == nil {
					t.Fatal("issued")
				} else if err.Gone {
					gone = time.Since(began)
					if !err.Again {
						t.Errorf("not at once: %v", err)
					}
				}
			}
			if gone < maxStill || gone > maxStill+20*time.Minute {
				t.Errorf("given up after %v", gone)
			}
			e.wantCount(t, "newOrder", 1)
			e.newKey(t)
			if err := asError(attempt()); err == nil || err.Gone { // the new one has its own hour
				t.Errorf("the new order: %v", err)
			}
			e.wantCount(t, "newOrder", 2)
		})
	})
	for _, when := range []string{"past", "future"} {
		t.Run("expires in the "+when, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1 << 30})
				d := map[string]time.Duration{"past": -time.Minute, "future": time.Hour}[when]
				e.ca.On(fakeca.Rule{Endpoint: "order", Mutate: func(_ *fakeca.Request, m map[string]any) {
					m["expires"] = time.Now().Add(d).UTC().Format(time.RFC3339)
				}})
				for range 2 {
					ctx, cancel := contextIn(t, time.Minute)
					_, err := e.client.Issue(ctx, e.request(t, "example.com"))
					cancel()
					if fe := asError(err); fe == nil || fe.Gone && when == "future" {
						t.Errorf("error: %v", err)
					} else if fe.Gone {
						return
					}
				}
				if when == "past" {
					t.Error("the expired order was gone on with")
				}
			})
		})
	}
}

// F11: a key that the CA refuses, or has certified in vain, is not used again.
func TestKeyOfADeadOrderIsGone(t *testing.T) {
	for name, rule := range map[string]fakeca.Rule{
		"bad key":       {Endpoint: "finalize", Problem: fakeca.NewProblem("badPublicKey", 400, "the key is blocked")},
		"bad CSR":       {Endpoint: "finalize", Problem: fakeca.NewProblem("badCSR", 400, "key reuse is not allowed")},
		"reuse":         {Endpoint: "finalize", Problem: fakeca.NewProblem("malformed", 409, "the key was used before")},
		"download lost": {Endpoint: "cert", Problem: fakeca.NewProblem("malformed", 404, "no such certificate")},
		"invalid":       {Endpoint: "finalize", Mutate: func(_ *fakeca.Request, m map[string]any) { m["status"] = "invalid" }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				remove := e.ca.On(rule)
				if err := e.fail(t, "example.com"); !err.Gone || err.Again {
					t.Errorf("gone %v, again %v: %v", err.Gone, err.Again, err)
				}
				remove()
				e.newKey(t)
				e.issue(t, "example.com")
				e.wantCount(t, "newOrder", 2)
			})
		})
	}
	t.Run("not sent yet", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error {
				return fakeca.NewProblem("caa", 403, "forbidden")
			}})
			if err := e.fail(t, "example.com"); err.Gone {
				t.Errorf("the CA has not seen the key: %v", err)
			}
		})
	})
}

// F12: a certificate that is good by the CA's clock is not ordered anew because
// this host's clock is wrong.
func TestClockOfThisHostIsAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const ahead = 300 * 24 * time.Hour
		e := newEnv(t, fakeca.Options{Backdate: ahead})
		date := func(d time.Duration) func() {
			return e.ca.On(fakeca.Rule{Header: http.Header{"Date": {time.Now().Add(d).UTC().Format(http.TimeFormat)}}})
		}
		remove := date(-ahead)
		for range 3 {
			err := e.fail(t, "example.com")
			if err.Gone || !strings.Contains(err.Error(), "clock of this host") || !strings.Contains(err.Error(), "by 720") {
				t.Errorf("error: %v", err)
			}
			time.Sleep(40 * time.Minute)
		}
		remove()
		e.wantCount(t, "newOrder", 1)
		if n := len(e.ca.Certificates()); n != 1 {
			t.Errorf("%d certificates", n)
		}
	})
}

// F31: what some CAs' accounts need.
func TestAccountOddities(t *testing.T) {
	for _, begin := range []string{"/", "", "./", "../x/../", "//ca.test/", "HTTPS://ca.test/"} {
		t.Run("relative Location "+begin, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "newAccount", Header: http.Header{"Location": {begin + "account/1"}}})
				e.ca.On(fakeca.Rule{Endpoint: "newOrder", Header: http.Header{"Location": {begin + "order/2"}}})
				e.issue(t, "example.com")
				if loc := e.accounts.record(t).Location; loc != "https://ca.test/account/1" {
					t.Errorf("the account is %q", loc)
				}
			})
		})
	}
	for _, endpoint := range []string{"newAccount", "newOrder"} {
		for _, value := range []string{"", "https://[ca.test/1", "\x7f"} {
			t.Run(fmt.Sprintf("no Location of %s, %q", endpoint, value), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, Header: http.Header{"Location": {value}}})
					if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), "Location") || !strings.Contains(err.Error(), "HTTP 201") {
						t.Errorf("error: %v", err)
					}
					e.wantCount(t, endpoint, 1)
				})
			})
		}
	}
	for _, problem := range []string{"badSignatureAlgorithm", "badPublicKey"} {
		t.Run("RSA only, "+problem, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "newAccount", N: 1, Problem: fakeca.NewProblem(problem, 400, "RS256 only")})
				e.issue(t, "example.com")
				key, err := certpem.DecodeKey([]byte(e.accounts.record(t).KeyPEM))
				if err != nil {
					t.Fatal(err)
				}
				if kind, _ := certpem.TypeOf(key.Public()); kind != certpem.RSA2048 {
					t.Errorf("the account key is %s", kind)
				}
				e.wantCount(t, "newAccount", 2)
			})
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "newAccount", Problem: fakeca.NewProblem("badSignatureAlgorithm", 400, "none is good")})
				e.fail(t, "example.com")
				e.wantCount(t, "newAccount", 2)
			})
		})
	}
	t.Run("byte order mark", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			body := []byte("\xef\xbb\xbf" + `{"newNonce":"https://ca.test/newNonce","newAccount":"https://ca.test/newAccount","newOrder":"https://ca.test/newOrder"}`)
			e.ca.On(fakeca.Rule{Endpoint: "directory", Body: body})
			if _, err := e.client.directory(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("private key in the chain", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			e.ca.On(fakeca.Rule{Endpoint: "cert", Body: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")})
			if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), "private key") || strings.Contains(err.Error(), "AAAA") {
				t.Errorf("error: %v", err)
			}
		})
	})
}

// F31: a changed e-mail address reaches the CA, once, and keeps nobody waiting.
func TestContactChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		change := func(contact ...string) {
			t.Helper()
			for range 2 { // the second start has nothing to say
				e.restart(func(o *Options) { o.Contact = contact })
				e.newKey(t)
				e.issue(t, "example.com")
			}
		}
		change("mailto:new@example.com")
		change()
		var sent []string
		for _, r := range e.ca.Requests("account") {
			sent = append(sent, string(r.Payload))
		}
		if want := []string{`{"contact":["mailto:new@example.com"]}`, `{"contact":[]}`}; !slices.Equal(sent, want) {
			t.Errorf("the CA was told %q, want %q", sent, want)
		}
		e.ca.On(fakeca.Rule{Endpoint: "account", Problem: fakeca.NewProblem("invalidContact", 400, "no")})
		e.restart(func(o *Options) { o.Contact = []string{"mailto:refused@example.com"} })
		e.newKey(t)
		e.issue(t, "example.com")
		e.wantCount(t, "newAccount", 1)
	})
}

// F31: a deactivated account is told apart from a name that is refused.
func TestDeactivatedAccountIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		e.newKey(t)
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 401, "the account is deactivated")})
		if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), e.accounts.record(t).Location) {
			t.Errorf("error: %v", err)
		}
	})
}

// F53: an order that asks for more than was ordered is not walked to its end.
func TestTooManyAuthorizations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) {
			var list []string
			for i := range 20_000 {
				list = append(list, fmt.Sprintf("https://ca.test/authz/%d", i))
			}
			m["authorizations"] = list
		}})
		if err := e.fail(t, "example.com"); !strings.Contains(err.Error(), "20000") {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "authz", 0)
	})
}

// Each request is bounded, whatever the HTTP client says.
func TestHangingRequestIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Hang: true})
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { e.fail(t, "example.com") })
		wg.Wait()
		if took := time.Since(began); took > maxTries*requestTimeout+time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}
