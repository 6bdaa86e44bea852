package revocation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTransport answers for the hosts it knows after their delay; the others
// hang until the request's context ends.
type fakeTransport map[string]struct {
	delay time.Duration
	raw   []byte
}

func (f fakeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, ok := f[req.URL.Host]
	if !ok {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	select {
	case <-time.After(answer.delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{
		StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(answer.raw)), Request: req,
	}, nil
}

func TestFetchOfAHangingResponder(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration // 0: none
		took    time.Duration
		err     error
		hosts   []string
	}{
		{"alone, no deadline", 0, 15 * time.Second, context.DeadlineExceeded, []string{"http://hangs"}},
		{"alone", 4 * time.Second, 4 * time.Second, context.DeadlineExceeded, []string{"http://hangs"}},
		{"two", 4 * time.Second, 4 * time.Second, context.DeadlineExceeded, []string{"http://hangs", "http://too"}},
		{"before a slow one", 4 * time.Second, 3 * time.Second, nil, []string{"http://hangs", "http://slow"}},
		{"before a slow one, no deadline", 0, 16 * time.Second, nil, []string{"http://hangs", "http://slow"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newFakeCA(t, time.Now())
				leaf := ca.leaf(42, tt.hosts...)
				transport := fakeTransport{"slow": {time.Second, ca.respond(ca.good(leaf))}}
				ctx := t.Context()
				if tt.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.timeout)
					defer cancel()
				}
				start := time.Now()
				_, err := Fetcher{Client: &http.Client{Transport: transport}}.Fetch(ctx, leaf, ca.cert)
				if !errors.Is(err, tt.err) || time.Since(start) != tt.took {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

// Two hundred certificates whose responder needs ten seconds are checked in ten
// seconds: nothing in a Fetcher makes one wait for another.
func TestA10_FetchesRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t, time.Now())
		leaf := ca.leaf(42, "http://slow")
		transport := fakeTransport{"slow": {10 * time.Second, ca.respond(ca.good(leaf))}}
		f := Fetcher{Client: &http.Client{Transport: transport}}
		start := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if s, err := f.Fetch(t.Context(), leaf, ca.cert); err != nil || s.Status != Good {
					t.Errorf("got %v, %v", s, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// fakeBody is a body that counts how often it is closed.
type fakeBody struct {
	io.Reader
	closed *int
}

func (b fakeBody) Close() error { *b.closed++; return nil }

// fakeAnswer answers everything with one status and body.
type fakeAnswer struct {
	status int
	body   fakeBody
}

func (f fakeAnswer) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: f.status, Body: f.body, Request: req}, nil
}

func TestFetchClosesBodies(t *testing.T) {
	ca := newFakeCA(t, time.Now())
	leaf := ca.leaf(42, "http://ocsp.example")
	for _, tt := range []struct {
		status int
		raw    []byte
	}{
		{http.StatusOK, ca.respond(ca.good(leaf))},
		{http.StatusOK, make([]byte, 2*maxResponse)},
		{http.StatusInternalServerError, nil},
	} {
		closed := 0
		transport := fakeAnswer{tt.status, fakeBody{bytes.NewReader(tt.raw), &closed}}
		_, err := Fetcher{Client: &http.Client{Transport: transport}}.Fetch(t.Context(), leaf, ca.cert)
		if closed != 1 {
			t.Errorf("status %d, %v: closed %d times", tt.status, err, closed)
		}
	}
}
