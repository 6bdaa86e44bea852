package acmeflow

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestDirectory_NotADirectory(t *testing.T) {
	for name, body := range map[string]string{
		"HTML": "<!DOCTYPE html><title>Welcome</title>", "empty": "", "null": "null", "list": "[]", "text": `"x"`,
		"other JSON": `{"hello":"world"}`, "wrong types": `{"newNonce":1,"newAccount":2,"newOrder":3}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "directory", Body: []byte(body)})
				err := e.fail(t, "example.com")
				text := err.Error()
				if err.Step != StepDirectory || !strings.Contains(text, "not an ACME directory") || !strings.Contains(text, "https://ca.test/directory") {
					t.Errorf("error: %v", err)
				}
				e.wantCount(t, "directory", 1)
			})
		})
	}
}

// Members that are not needed stop nothing, whatever they are.
func TestP11_OddOptionalMembersOfDirectory(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"meta is text":    func(m map[string]any) { m["meta"] = "x" },
		"meta is null":    func(m map[string]any) { m["meta"] = nil },
		"meta is missing": func(m map[string]any) { delete(m, "meta") },
		"members of meta": func(m map[string]any) {
			m["meta"] = map[string]any{"termsOfService": 5, "website": []any{}, "caaIdentities": "x", "externalAccountRequired": "yes", "profiles": 7}
		},
		"renewalInfo":       func(m map[string]any) { m["renewalInfo"] = 7 },
		"revocation":        func(m map[string]any) { m["revokeCert"], m["keyChange"], m["newAuthz"] = 1, nil, []any{} },
		"what is not known": func(m map[string]any) { m["x"] = map[string]any{"y": []any{1, nil}} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "directory", Mutate: func(_ *fakeca.Request, m map[string]any) { change(m) }})
				e.issue(t, "example.com")
			})
		})
	}
}

// A profile counts as offered whatever its description is.
func TestDirectory_Profiles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Profiles: map[string]time.Duration{"a": time.Hour, "b": time.Hour}})
		e.ca.On(fakeca.Rule{Endpoint: "directory", Mutate: func(_ *fakeca.Request, m map[string]any) {
			m["meta"].(map[string]any)["profiles"].(map[string]any)["b"] = map[string]any{"text": "no text"}
		}})
		for profile, ok := range map[string]bool{"a": true, "b": true, "c": false} {
			e.newKey(t)
			req := e.request(t, "example.com")
			req.Profile = profile
			if _, err := e.client.Issue(t.Context(), req); (err == nil) != ok || !ok && !strings.Contains(err.Error(), `'c'`) {
				t.Errorf("profile %q: %v", profile, err)
			}
		}
	})
}

func TestDirectory_KeptAndRefreshed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		meta := func() {
			t.Helper()
			if _, err := e.client.directory(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		meta()
		time.Sleep(directoryAge - time.Minute)
		meta()
		e.wantCount(t, "directory", 1)
		time.Sleep(2 * time.Minute)
		meta()
		e.wantCount(t, "directory", 2)

		// An old one is good enough when there is no new one, and no reason to ask each time.
		time.Sleep(2 * directoryAge)
		remove := e.ca.On(fakeca.Rule{Endpoint: "directory", Problem: fakeca.RateLimited(time.Hour, "")})
		for range 10 {
			meta()
		}
		e.wantCount(t, "directory", 3)
		e.issue(t, "example.com")
		remove()
		time.Sleep(2 * directoryGrace)
		meta()
		e.wantCount(t, "directory", 4)
	})
}

// The CA moved its endpoints: newOrder answers 404 and the directory says where it is.
func TestDirectory_Moved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		remove := e.ca.On(fakeca.Rule{Endpoint: "directory", Mutate: func(_ *fakeca.Request, m map[string]any) { m["newOrder"] = "https://ca.test/old/new-order" }})
		err := e.fail(t, "example.com")
		if err.Problem == nil || err.Problem.Status != 404 {
			t.Errorf("error: %v", err)
		}
		remove()
		e.issue(t, "example.com")
	})
}

func TestSkew(t *testing.T) {
	for _, skew := range []time.Duration{0, 48 * time.Hour, -90 * time.Minute} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			e.ca.On(fakeca.Rule{Header: http.Header{"Date": {time.Now().Add(skew).UTC().Format(http.TimeFormat)}}})
			if got := e.client.Skew(); got != 0 {
				t.Errorf("skew %v before any reply", got)
			}
			if _, err := e.client.directory(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := e.client.Skew(); got != skew {
				t.Errorf("skew %v, want %v", got, skew)
			}
		})
	}
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Header: http.Header{"Date": {"yesterday"}}})
		e.issue(t, "example.com")
		if got := e.client.Skew(); got != 0 {
			t.Errorf("skew %v from junk", got)
		}
	})
}

func TestRenewalInfo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{ARIRetryAfter: 3 * time.Hour})
		leaf := e.check(t, e.issue(t, "example.com"), "example.com")
		info, err := e.client.RenewalInfo(t.Context(), leaf)
		if err != nil {
			t.Fatal(err)
		}
		if !info.Start.After(leaf.NotBefore) || !info.End.After(info.Start) || info.RetryAfter != 3*time.Hour {
			t.Errorf("info: %+v", info)
		}
	})
}

func TestRenewalInfo_OddReplies(t *testing.T) {
	window := `"suggestedWindow":{"start":"2030-01-02T00:00:00Z","end":"2030-01-01T00:00:00Z"}`
	for name, row := range map[string]struct {
		rule  fakeca.Rule
		fails bool
		start bool
	}{
		"ends before it starts":  {fakeca.Rule{Body: []byte("{" + window + "}")}, false, true},
		"explanation is no text": {fakeca.Rule{Body: []byte(`{"explanationURL":{"a":1},` + window + "}")}, false, true},
		"unknown members":        {fakeca.Rule{Body: []byte(`{"x":[null],` + window + "}")}, false, true},
		"no window":              {fakeca.Rule{Body: []byte(`{}`)}, false, false},
		"window is null":         {fakeca.Rule{Body: []byte(`{"suggestedWindow":null}`)}, false, false},
		"no time":                {fakeca.Rule{Body: []byte(`{"suggestedWindow":{"start":"soon","end":"later"}}`)}, true, false},
		"HTML":                   {fakeca.Rule{Body: []byte(`<html>`)}, true, false},
		"not found":              {fakeca.Rule{Status: 404}, true, false},
		"lost":                   {fakeca.Rule{HangUp: fakeca.Before}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				leaf := e.check(t, e.issue(t, "example.com"), "example.com")
				row.rule.Endpoint = "renewalInfo"
				e.ca.On(row.rule)
				info, err := e.client.RenewalInfo(t.Context(), leaf)
				if (err != nil) != row.fails || info.Start.IsZero() == row.start {
					t.Errorf("info %+v, error %v", info, err)
				}
			})
		})
	}
}

func TestRenewalInfo_None(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{NoARI: true})
		leaf := e.check(t, e.issue(t, "example.com"), "example.com")
		if _, err := e.client.RenewalInfo(t.Context(), leaf); !errors.Is(err, ErrNoRenewalInfo) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestRenewalInfo_RateLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		leaf := e.check(t, e.issue(t, "example.com"), "example.com")
		e.ca.On(fakeca.Rule{Endpoint: "renewalInfo", Problem: fakeca.RateLimited(2*time.Hour, "")})
		_, err := e.client.RenewalInfo(t.Context(), leaf)
		var fe *Error
		if !errors.As(err, &fe) || fe.RetryAfter != 2*time.Hour || fe.Step != StepRenewalInfo {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "renewalInfo", 1)
	})
}
