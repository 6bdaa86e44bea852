package certwright

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// TestR2_FreshManagersShareOneBackOff runs what a caller does who makes
// everything anew every few seconds.
func TestR2_FreshManagersShareOneBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(0, "slow down")})
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Second) {
			again := conf
			again.Issuers = []Issuer{issuerAt(ca)}
			m := start(t, again)
			if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
				t.Fatal("a certificate came from a CA that refuses all orders")
			}
			closeManager(t, m)
		}
		// At 0, 1, 3.5, 10, 26 and, with the most jitter, 52 minutes.
		if n := ca.Count("newOrder"); n < 4 || n > 6 {
			t.Errorf("%d orders in an hour; want one back-off curve, 4 to 6", n)
		}
	})
}

func TestR2_RepeatedManageSyncIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		remove := ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(0, "slow down")})
		log, logs := observed(slog.LevelError)
		conf.Logger = log
		m := start(t, conf)
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Second) {
			err := m.ManageSync(t.Context(), []string{"a.example.com"})
			var failure *IssueError
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), "slow down") {
				t.Fatalf("ManageSync = %v; want the CA's words", err)
			}
		}
		orders := ca.Count("newOrder")
		if orders > 6 {
			t.Errorf("%d orders in an hour", orders)
		}
		if n := logs.Len(); n > orders {
			t.Errorf("%d error lines for %d attempts", n, orders)
		}
		if s := statusFor(t, m, "a.example.com"); s.Attempts != orders || s.State != StateMissing {
			t.Errorf("status says %d attempts and %q; want %d and missing", s.Attempts, s.State, orders)
		}
		remove()
		time.Sleep(6 * time.Hour)
		before := ca.Count("newOrder")
		for range 100 {
			manage(t, m, "a.example.com")
		}
		if n := ca.Count("newOrder"); n != before {
			t.Errorf("%d orders by ManageSync of a good name", n-before)
		}
	})
}

// TestR3_RestartedProcessFollowsOneCurve lets a supervisor restart a process
// whose CA refuses it.
func TestR3_RestartedProcessFollowsOneCurve(t *testing.T) {
	const env = "CERTWRIGHT_TEST_R3"
	if where, ok := os.LookupEnv(env); ok {
		restartedProcess(t, where)
		return
	}
	srv := httptest.NewUnstartedServer(nil)
	ca := fakeca.New(fakeca.Options{BaseURL: "http://" + srv.Listener.Addr().String()})
	ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", http.StatusForbidden, "not you")})
	srv.Config.Handler = ca
	srv.Start()
	defer srv.Close()
	restarts := 50
	if testing.Short() {
		restarts = 5
	}
	dir := t.TempDir()
	began := time.Now()
	for range restarts {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), env+"="+dir+" "+ca.Directory(), "GORACE=atexit_sleep_ms=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("the process: %v\n%s", err, out)
		}
	}
	// One a minute at the very worst, by the shortest back-off.
	if n, most := ca.Count("newOrder"), 1+int(time.Since(began)/(48*time.Second)); n < 1 || n > most {
		t.Errorf("%d orders by %d processes; want 1 to %d", n, restarts, most)
	}
	if n := ca.Accounts(); n != 1 {
		t.Errorf("%d accounts", n)
	}
}

// restartedProcess is one life of the process. It sees the failure and goes on.
func restartedProcess(t *testing.T, where string) {
	dir, directory, _ := strings.Cut(where, " ")
	m := start(t, Config{
		AgreeToTerms: true, Directory: directory, Storage: openDir(t, dir),
		Logger: slog.New(slog.DiscardHandler), HTTPPort: -1, TLSPort: -1,
	})
	err := m.ManageSync(t.Context(), []string{"a.example.com"})
	if err == nil || !strings.Contains(err.Error(), "not you") {
		t.Fatalf("ManageSync = %v; want the CA's refusal", err)
	}
}

func TestR5_PausedAccount(t *testing.T) {
	const url = "https://portal.test/unpause?jwt=abc"
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{
			Endpoint: "newOrder", NoNonce: true,
			Problem: fakeca.RateLimited(0, "Your account is temporarily prevented from requesting certificates for a.example.com. Please visit: "+url),
		})
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"a.example.com"})
		if err == nil || !strings.Contains(err.Error(), url) {
			t.Errorf("ManageSync = %v; want the URL in it", err)
		}
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders were posted; want 1", n)
		}
		time.Sleep(day - time.Second)
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders were posted within a day; want 1", n)
		}
		if s := statusFor(t, m, "a.example.com"); !strings.Contains(s.LastError, url) {
			t.Errorf("status says %q; want the URL in it", s.LastError)
		}
	})
}

func TestR6_RetryAfter(t *testing.T) {
	const week = 7 * day
	// Without a wish of the CA's, the back-off waits 48 to 60 seconds.
	for _, tt := range []struct {
		name        string
		header      func(now time.Time) string
		least, most time.Duration
	}{
		{"seconds", func(time.Time) string { return "3600" }, time.Hour, time.Hour + time.Minute},
		{"date", func(now time.Time) string { return now.Add(time.Hour).UTC().Format(http.TimeFormat) }, time.Hour - time.Minute, time.Hour + time.Minute},
		{"negative", func(time.Time) string { return "-1" }, 48 * time.Second, time.Minute},
		{"huge", func(time.Time) string { return "99999999" }, week, week + time.Minute},
		{"garbage", func(time.Time) string { return "soon" }, 48 * time.Second, time.Minute},
	} {
		for _, endpoint := range []string{"directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "finalize", "order", "cert"} {
			t.Run(tt.name+"/"+endpoint, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{PollsProcessing: 1})
					remove := ca.On(fakeca.Rule{
						Endpoint: endpoint, Problem: fakeca.RateLimited(0, "slow down"),
						Header: http.Header{"Retry-After": {tt.header(time.Now())}},
					})
					m := start(t, conf)
					err := m.ManageSync(t.Context(), []string{"a.example.com"})
					if err == nil || !strings.Contains(err.Error(), "rateLimited") {
						t.Fatalf("ManageSync = %v; want the CA's problem", err)
					}
					asked := ca.Count(endpoint)
					if asked != 1 {
						t.Errorf("%d requests for one refusal", asked)
					}
					wait := time.Until(statusFor(t, m, "a.example.com").NextAt)
					if wait < tt.least-time.Second || wait > tt.most {
						t.Errorf("the next attempt is in %v; want %v to %v", wait, tt.least, tt.most)
					}
					time.Sleep(wait - time.Second)
					if n := ca.Count(endpoint); n != asked {
						t.Errorf("%d requests before the time had come", n-asked)
					}
					remove()
					time.Sleep(2 * time.Minute)
					mustLeaf(t, m, "a.example.com")
				})
			})
		}
	}
}

// failingIssuers are the ways in which a first CA can be of no use.
var failingIssuers = []struct {
	name string
	rule fakeca.Rule
}{
	{"500", fakeca.Rule{Problem: fakeca.NewProblem("serverInternal", 500, "maintenance")}},
	{"503 page", fakeca.Rule{Status: 503, Body: []byte("<html>maintenance</html>")}},
	{"hang", fakeca.Rule{Hang: true}},
	{"hang at newOrder", fakeca.Rule{Endpoint: "newOrder", Hang: true}},
	{"refused", fakeca.Rule{Err: syscall.ECONNREFUSED}},
	{"429", fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(time.Hour, "slow down")}},
	{"429 at newAccount", fakeca.Rule{Endpoint: "newAccount", Problem: fakeca.RateLimited(time.Hour, "slow down")}},
	{"rejected", fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("rejectedIdentifier", 403, "not this name")}},
	{"finalize", fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("badCSR", 400, "not this CSR")}},
}

func TestR8_SecondIssuer(t *testing.T) {
	const name = "a.example.com"
	adding := map[string]func(t *testing.T, m *Manager) error{
		"ManageSync": func(t *testing.T, m *Manager) error { return m.ManageSync(t.Context(), []string{name}) },
		"ManageAsync": func(t *testing.T, m *Manager) error {
			return errors.Join(m.ManageAsync([]string{name}), m.Wait(t.Context(), name))
		},
		"Manage":             func(t *testing.T, m *Manager) error { return m.Manage(t.Context(), Spec{Names: []string{name}}) },
		"Manage with issuer": nil,
		"Renew":              nil,
	}
	for _, tt := range failingIssuers {
		for way, add := range adding {
			if way == "Renew" && tt.rule.Endpoint == "newAccount" {
				continue // there is an account by then
			}
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "a")})
					b, _ := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "b")})
					first := issuerAt(a)
					first.Timeout = 30 * time.Second
					conf.Issuers = []Issuer{first, issuerAt(b)}
					m := start(t, conf)
					switch way {
					case "Renew":
						manage(t, m, name)
						add = func(t *testing.T, m *Manager) error { return m.Renew(t.Context(), name) }
					case "Manage with issuer":
						add = func(t *testing.T, m *Manager) error {
							return m.Manage(t.Context(), Spec{Names: []string{name}, Issuers: []Issuer{first, conf.Issuers[1]}})
						}
					}
					a.On(tt.rule)
					if err := add(t, m); err != nil {
						t.Fatal(err)
					}
					if s := statusFor(t, m, name); s.Issuer != issuerAt(b).ID() || s.State != StateValid {
						t.Errorf("status says issuer %q, %q; want the second, valid", s.Issuer, s.State)
					}
					if n := len(b.Certificates()); n != 1 {
						t.Errorf("the second CA issued %d certificates", n)
					}
				})
			})
		}
	}
}

func TestR11_EmptyStorageAndExactSetLimit(t *testing.T) {
	const said = "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s"
	ca, conf := newFake(t, fakeca.Options{})
	ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(7*day, said)})
	dir := openDir(t, t.TempDir()+"/new")
	log, logs := observed(slog.LevelWarn)
	conf.Storage, conf.Logger = dir, log
	m := start(t, conf)
	if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
		t.Fatal("a certificate came from a CA that refuses all orders")
	}
	if !hasField(logs.All(), "path", dir.Path()) {
		t.Errorf("no warning names the new storage directory: %v", logs.All())
	}
	s := statusFor(t, m, "a.example.com")
	if !strings.Contains(s.LastError, said) || s.State != StateMissing || time.Until(s.NextAt) < 6*day {
		t.Errorf("status = %+v; want the limit, missing, next in a week", s)
	}
	if h := m.Health(); h.Failing != 1 || h.Managed != 1 {
		t.Errorf("health = %+v; want 1 of 1 failing", h)
	}
}

func hasField(entries []logLine, key, value string) bool {
	for _, e := range entries {
		if e.Fields[key] == value && e.Level >= slog.LevelWarn {
			return true
		}
	}
	return false
}

func TestR12_OrderLimit(t *testing.T) {
	count := 500
	if testing.Short() {
		count = 60
	}
	names := numbered(count, "example.com")
	run := func(t *testing.T, limit OrderLimit, check func(m *Manager)) time.Duration {
		ca, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "limited")})
		_, free := newFake(t, fakeca.Options{})
		iss := issuerAt(ca)
		iss.OrderLimit = limit
		conf.Issuers = []Issuer{iss}
		m := start(t, conf)
		began := time.Now()
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		// A name with another issuer does not wait for them.
		if err := m.Manage(t.Context(), Spec{Names: []string{"free.example.com"}, Issuers: free.Issuers}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Minute {
			t.Errorf("a name with another issuer waited %v", d)
		}
		check(m)
		manage(t, m, names...)
		if n := ca.Count("newOrder"); n != count {
			t.Errorf("%d orders for %d names", n, count)
		}
		return time.Since(began)
	}
	t.Run("off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if d := run(t, OrderLimit{}, func(*Manager) {}); d > time.Minute {
				t.Errorf("%d names took %v", count, d)
			}
		})
	})
	t.Run("on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := run(t, OrderLimit{Orders: 20, Per: time.Minute}, func(m *Manager) {
				synctest.Wait()
				waiting := 0
				for _, s := range m.Status() {
					if s.NextAction == ActionAwaitSlot && !s.NextAt.IsZero() {
						waiting++
					}
				}
				if waiting != count-20 {
					t.Errorf("%d names are seen waiting; want %d", waiting, count-20)
				}
			})
			want := time.Duration(count/20-1) * time.Minute
			if d < want || d > want+time.Minute {
				t.Errorf("%d names took %v; want %v", count, d, want)
			}
		})
	})
}
