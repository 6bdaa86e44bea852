package certwright_test

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/certwright/certwright"
)

// asPlainUser takes from the thread of the test the right to bind low ports. What
// the test calls binds them on its own goroutine.
func asPlainUser(t *testing.T) {
	t.Helper()
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(b)) != "1024" {
		t.Skipf("low ports are for all here: %s %v", b, err)
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
	if err := unix.Capset(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
}

func TestLowPortAsAPlainUser(t *testing.T) {
	asPlainUser(t)
	m := offline(t, newFakeSigner(t), func(c *Config) { c.ListenHost, c.TLSPort, c.HTTPPort = "127.0.0.1", 843, freePort(t) })
	_, listenErr := m.Listen("tcp", "127.0.0.1:843")
	for _, tt := range []struct {
		err  error
		says []string
	}{
		{m.Serve(t.Context(), nil, "a.example.com"), []string{"Config.TLSPort", "843", "CAP_NET_BIND_SERVICE", "above 1023", "forward"}},
		{listenErr, []string{"127.0.0.1:843", "CAP_NET_BIND_SERVICE", "above 1023", "forward"}},
	} {
		if !errors.Is(tt.err, fs.ErrPermission) {
			t.Fatalf("%v; want that the port is not permitted", tt.err)
		}
		for _, want := range tt.says {
			if !strings.Contains(tt.err.Error(), want) {
				t.Errorf("%v\nlacks %q", tt.err, want)
			}
		}
	}
}
