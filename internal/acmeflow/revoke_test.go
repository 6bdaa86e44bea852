package acmeflow

import (
	"errors"
	"testing"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestRevoke(t *testing.T) {
	for name, byKey := range map[string]bool{"by the account": false, "by the certificate's key": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				leaf := e.check(t, e.issue(t, "example.com"), "example.com")
				key := e.key
				if !byKey {
					key = nil
				}
				e.ca.On(fakeca.Rule{Endpoint: "revokeCert", N: 1, HangUp: fakeca.After})
				for range 2 { // the second finds it revoked
					if err := e.client.Revoke(t.Context(), leaf, key, 4); err != nil {
						t.Fatal(err)
					}
				}
				if !e.ca.Revoked(leaf.SerialNumber) {
					t.Error("not revoked")
				}
				for _, r := range e.ca.Requests("revokeCert") {
					if (r.Kid == "") != byKey {
						t.Errorf("signed by %q", r.Kid)
					}
				}
			})
		})
	}
}

func TestRevoke_Refused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		leaf := e.check(t, e.issue(t, "example.com"), "example.com")
		err := e.client.Revoke(t.Context(), leaf, nil, 99)
		var fe *Error
		if !errors.As(err, &fe) || fe.Step != StepRevoke || problemType(fe) != "badRevocationReason" {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "revokeCert", 1)
	})
}
