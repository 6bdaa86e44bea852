package acmeflow

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// No failure of any endpoint puts a secret into an error or a log line, also
// when the CA repeats what it was sent.
func TestSecretsStaySecret(t *testing.T) {
	mac := []byte("a MAC key that nobody may read 1")
	rules := map[string]fakeca.Rule{
		"no failure": {},
		"500":        {Status: 500},
		"HTML":       {Body: []byte("<html>")},
		"lost":       {HangUp: fakeca.Before},
		"refused":    {Problem: fakeca.NewProblem("malformed", 400, "no")},
	}
	for _, endpoint := range issueEndpoints {
		for name, rule := range rules {
			t.Run(endpoint+" "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{EAB: map[string][]byte{"kid": mac}})
					rule.Endpoint = endpoint
					e.ca.On(rule)
					withOrderPoll(e.ca)
					e.restart(withEAB("kid", base64.RawURLEncoding.EncodeToString(mac)))
					e.checkSecrets(t, mac)
				})
			})
		}
	}
}

func TestSecretsStaySecret_CARepeatsThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Validate: func(_ context.Context, ch fakeca.ChallengeInfo) error {
			return &fakeca.Problem{
				Type: "unauthorized", Status: 403,
				Detail:      fmt.Sprintf("expected %q (got %q)", ch.KeyAuthorization, "junk"),
				Subproblems: []fakeca.Problem{{Type: "unauthorized", Detail: "wanted " + ch.KeyAuthorization}},
			}
		}})
		e.restart(nil)
		e.checkSecrets(t, []byte("unused unused unused"))
	})
}

func (e *env) checkSecrets(t *testing.T, mac []byte) {
	t.Helper()
	secrets := map[string]string{
		"MAC key":           base64.RawURLEncoding.EncodeToString(mac),
		"MAC key (raw)":     string(mac),
		"MAC key (base64)":  base64.StdEncoding.EncodeToString(mac),
		"certificate's key": "PRIVATE KEY",
	}
	e.solver.onPresent = func(ch Challenge) {
		e.solver.mu.Lock()
		defer e.solver.mu.Unlock()
		secrets["key authorization of "+ch.Type] = ch.KeyAuthorization
	}
	ctx, cancel := contextIn(t, time.Minute)
	defer cancel()
	_, err := e.client.Issue(ctx, e.request(t, "example.com"))
	if rec, recErr := e.accounts.Load(ctx); recErr == nil {
		block, _ := pem.Decode([]byte(rec.KeyPEM))
		secrets["account key"] = base64.StdEncoding.EncodeToString(block.Bytes)[:40]
	}
	text := e.log.String() + string(e.saved()) + fmt.Sprintf("%v %+v", err, err)
	for what, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the %s is in: %s", what, text)
		}
	}
}
