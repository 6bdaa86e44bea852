package acmeflow

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// netEnv is a CA behind a real listener on loopback, asked through the
// Client's own HTTP transport. goleak looks for what is left of it.
func netEnv(t *testing.T, o fakeca.Options) *env {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.BaseURL = "http://" + ln.Addr().String()
	e := newEnv(t, o)
	srv := httptest.NewUnstartedServer(e.ca)
	_ = srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	e.server = srv
	e.restart(func(o *Options) { o.HTTPClient = nil })
	t.Cleanup(func() { e.client.Close() })
	return e
}

func TestNetwork_ParallelIssues(t *testing.T) {
	e := netEnv(t, fakeca.Options{PollsProcessing: 1})
	for _, endpoint := range issueEndpoints {
		e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, HangUp: fakeca.After})
	}
	var wg sync.WaitGroup
	for i := range 32 {
		req := e.request(t, name(i))
		req.State, req.Save = nil, nil
		wg.Go(func() {
			res, err := e.client.Issue(t.Context(), req)
			if err != nil {
				t.Errorf("Issue %d: %v", i, err)
				return
			}
			if res.URL == "" {
				t.Errorf("Issue %d: no URL", i)
			}
		})
	}
	wg.Wait()
	e.solver.checkClean(t)
	if n := len(e.ca.Certificates()); n != 32 {
		t.Errorf("%d certificates", n)
	}
	if n := e.ca.Accounts(); n != 1 {
		t.Errorf("%d accounts", n)
	}
}

func TestNetwork_ContextEnds(t *testing.T) {
	e := netEnv(t, fakeca.Options{})
	hanging := make(chan struct{})
	var once sync.Once
	e.ca.On(fakeca.Rule{Endpoint: "challenge", Hang: true, When: func(*fakeca.Request) bool {
		once.Do(func() { close(hanging) })
		return true
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := e.client.Issue(ctx, e.request(t, "example.com"))
		done <- err
	}()
	<-hanging
	start := time.Now()
	cancel()
	if err := <-done; err == nil {
		t.Error("Issue succeeded")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	e.solver.checkClean(t)
}

// A redirect is followed by the caller's own rules.
func TestNetwork_DirectoryRedirects(t *testing.T) {
	e := netEnv(t, fakeca.Options{})
	front := httptest.NewServer(http.RedirectHandler(e.ca.Directory(), http.StatusFound))
	defer front.Close()
	e.restart(func(o *Options) { o.HTTPClient, o.Directory = nil, front.URL+"/directory" })
	defer e.client.Close()
	res, err := e.client.Issue(t.Context(), e.request(t, "example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Directory != front.URL+"/directory" {
		t.Errorf("directory %s", res.Directory)
	}
}

// Nobody listens: the error says where, and comes soon.
func TestNetwork_Refused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	e := newEnv(t, fakeca.Options{BaseURL: "http://" + ln.Addr().String()})
	e.restart(func(o *Options) { o.HTTPClient = nil })
	defer e.client.Close()
	if err := e.fail(t, "example.com"); err.Step != StepDirectory || err.Problem != nil {
		t.Errorf("error: %v", err)
	}
}
