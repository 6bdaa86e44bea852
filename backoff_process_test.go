package certwright_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// TestRestartedProcessesFollowOneBackOff lets a supervisor restart a process
// whose CA refuses it.
func TestRestartedProcessesFollowOneBackOff(t *testing.T) {
	const env = "CERTWRIGHT_TEST_BACKOFF"
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
