package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/certwright/certwright"
)

// brokenError is a nil pointer that poses as an error.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

func TestAnErrorThatCannotBeTold(t *testing.T) {
	w := newWriter("example.com")
	w.before = func(context.Context, string) error { return (*brokenError)(nil) }
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	err := s.Present(t.Context(), c.now())
	if err == nil || !strings.Contains(err.Error(), `TXT "_acme-challenge" in zone "example.com"`) {
		t.Errorf("error %v", err)
	}
}

// Some providers have their key in the query of a URL, which errors of net/http name.
func TestErrorsDoNotHoldTheQueriesOfURLs(t *testing.T) {
	w := newWriter("example.com")
	w.before = func(context.Context, string) error {
		return fmt.Errorf("asking: %w", errors.Join(
			&url.Error{Op: "Get", URL: "https://api.example.net/xml.response?ApiUser=me&ApiKey=s3cret", Err: retryLater{}},
			errors.New("POST http://api.example.net:8080/v1?token=s3cret failed")))
	}
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	err := s.Present(t.Context(), c.now())
	wantError(t, errors.New(strings.ReplaceAll(err.Error(), "\n", " ")), `Get "https://api.example.net/xml.response?…": 429`, "http://api.example.net:8080/v1?… failed")
	if _, ok := certwright.RetryAfter(err); !ok {
		t.Error("RetryAfter is lost")
	}
	cleanErr := s.CleanUp(t.Context(), c.now())
	for _, text := range []string{err.Error(), cleanErr.Error(), c.log()} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("a secret is told: %s", text)
		}
	}
}
