package certwright

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/certwright/certwright/storage"
)

// It looks inside because root, as which tests run, may bind any port.
func TestFailedChallengeSaysThatThePortIsNotPermitted(t *testing.T) {
	m, err := New(Config{AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: 8080, TLSPort: 443, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	denied := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EACCES)}
	for challengeType, field := range map[string]string{"http-01": "Config.HTTPPort", "tls-alpn-01": "Config.TLSPort"} {
		m.ports.Note(challengeType, denied)
		e := &StepError{Step: "challenge", Challenge: challengeType, Problem: &Problem{Type: "urn:ietf:params:acme:error:connection"}, Err: errors.New("invalid")}
		m.hint(e)
		for _, want := range []string{"may not listen on port", "CAP_NET_BIND_SERVICE", "above 1023", field} {
			if !strings.Contains(e.Error(), want) {
				t.Errorf("%v\nlacks %q", e, want)
			}
		}
	}
}
