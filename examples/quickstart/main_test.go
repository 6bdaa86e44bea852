package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func TestOnce(t *testing.T) {
	var out, errOut bytes.Buffer
	if err := run(t.Context(), []string{"-once"}, &out, &errOut); err != nil {
		t.Fatalf("run: %v\n%s%s", err, &out, &errOut)
	}
	want := regexp.MustCompile(`^issued +name localhost, issuer "CN=Pebble .*", serial ([0-9a-f]+), not_after \S+Z
renewed +new serial ([0-9a-f]+), while the server was serving
restarted no new order was made; serial ([0-9a-f]+) is served from storage
$`)
	got := want.FindStringSubmatch(out.String())
	if got == nil {
		t.Fatalf("printed:\n%s", &out)
	}
	if got[1] == got[2] || got[2] != got[3] {
		t.Errorf("serials %q, %q, %q: want a new one, kept over the restart", got[1], got[2], got[3])
	}
}

// lines is a writer that hands on what is written to it.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.text.Write(p)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The curl line works as it is printed, and the program ends when told to.
func TestServeAndCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{more: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, nil, out, io.Discard) }()
	curl := regexp.MustCompile(`(?m)^try +(curl .*)$`)
	for !curl.MatchString(out.String()) || !strings.Contains(out.String(), "Ctrl-C") {
		select {
		case <-out.more:
		case err := <-ended:
			t.Fatalf("ended early: %v\n%s", err, out)
		}
	}
	command := strings.Fields(curl.FindStringSubmatch(out.String())[1])
	got, err := exec.CommandContext(ctx, command[0], append([]string{"-sS", "--max-time", "20"}, command[1:]...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(got), "Hello over HTTP/2.0 from https://localhost:") {
		t.Errorf("%v: %v\n%s", command, err, got)
	}
	if strings.Contains(out.String(), "0001-01-01") || strings.Count(out.String(), "issued by") != 3 {
		t.Errorf("status lines are not filled in:\n%s", out)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"example.com"},
		{"-ca", "https://ca.example/dir"},
		{"-ca", "https://ca.example/dir", "-once", "example.com"},
		{"-unknown"},
	} {
		var errOut bytes.Buffer
		if err := run(t.Context(), args, io.Discard, &errOut); !errors.Is(err, errUsage) || errOut.Len() == 0 {
			t.Errorf("%v: error %v, said %q", args, err, &errOut)
		}
	}
	var errOut bytes.Buffer
	err := run(t.Context(), []string{"-ca", "ca.example", "-storage", t.TempDir(), "example.com"}, io.Discard, &errOut)
	if err == nil || !strings.Contains(err.Error(), "Directory") {
		t.Errorf("a directory that is no URL: error %v", err)
	}
}
