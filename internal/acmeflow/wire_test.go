package acmeflow

import (
	"slices"
	"testing"
)

// A member of an unexpected type leaves the others readable, and text in place of
// a problem document is told.
func TestRepliesWithUnexpectedMembers(t *testing.T) {
	o := order{Finalize: "https://ca.test/finalize"}
	body := `{"status":"invalid","expires":5,"finalize":{},"authorizations":"none","identifiers":[{"type":"dns","value":"a.example"}],"error":"no quota left"}`
	if !decode([]byte(body), &o) {
		t.Fatal("it counts as no object")
	}
	if o.Status != "invalid" || o.Finalize == "" || !slices.Equal(o.names(), []string{"a.example"}) || o.Problem == nil || o.Problem.Error() != `about:blank: "no quota left"` {
		t.Errorf("read as %+v, %v", o, o.Problem)
	}
	var a authorization
	decode([]byte(`{"challenges":[5,{"type":"dns-01","url":"u","error":{"type":7,"detail":"no record","subproblems":[{"detail":"sub","identifier":{"type":"dns","value":"b.example"}}]}},null]}`), &a)
	if len(a.Challenges) != 3 || a.Challenges[1].Problem.Error() != `about:blank: no record; about:blank for "b.example": sub` {
		t.Errorf("read as %+v", a.Challenges)
	}
	for _, body := range []string{"", "null", "[]", "5", `"{"`, "{", "<html>"} {
		if decode([]byte(body), new(order)) {
			t.Errorf("%q counts as an object", body)
		}
	}
}
