package certwright

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
)

// plainIssuer is an Issuer of a caller's with no more than it needs.
type plainIssuer struct{}

func (plainIssuer) ID() string { return "plain" }

func (plainIssuer) Issue(context.Context, IssueRequest) (Issued, error) {
	return Issued{}, fmt.Errorf("signing: %w", ErrOrderGone)
}

func TestCAOfAnIssuer(t *testing.T) {
	if ca := caOf(plainIssuer{}); ca != "plain" {
		t.Errorf("an Issuer that does not say is the CA %q", ca)
	}
	a, b := caOf(&ACME{}), caOf(&ACME{Account: "second", EAB: &EAB{KeyID: "kid"}})
	if a != b || a == caOf(&ACME{Directory: LetsEncryptStaging}) {
		t.Errorf("two accounts at one CA: %q, %q", a, b)
	}
}

func TestValidationsAreCounted(t *testing.T) {
	for _, row := range []struct {
		err  StepError
		want map[string]int
	}{
		{StepError{Step: "challenge", Name: "a.example", failed: map[string]int{"a.example": 2, "b.example": 1}}, map[string]int{"a.example": 2, "b.example": 1}},
		{StepError{Step: "order", failed: map[string]int{}}, nil},
		{StepError{Step: "challenge", Name: "a.example"}, map[string]int{"a.example": 1}}, // of an Issuer of the caller's
		{StepError{Step: "challenge"}, nil},
		{StepError{Step: "order", Name: "a.example"}, nil},
	} {
		if got := row.err.validations(); !maps.Equal(got, row.want) {
			t.Errorf("%v: %v, want %v", &row.err, got, row.want)
		}
	}
}

func TestWhoMayBeAskedAgainAtOnce(t *testing.T) {
	_, plain := plainIssuer{}.Issue(t.Context(), IssueRequest{})
	for _, row := range []struct {
		err         error
		gone, again bool
	}{
		{plain, true, false},
		{&StepError{gone: true}, true, false},
		{fmt.Errorf("x: %w", &StepError{gone: true, again: true}), true, true},
		{&StepError{again: true}, false, false},
		{errors.New("no"), false, false},
	} {
		if errors.Is(row.err, ErrOrderGone) != row.gone || mayRetryNow(row.err) != row.again {
			t.Errorf("%+v: gone %v, again %v", row.err, errors.Is(row.err, ErrOrderGone), mayRetryNow(row.err))
		}
	}
}
