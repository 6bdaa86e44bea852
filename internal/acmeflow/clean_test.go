package acmeflow

import (
	"encoding/json"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

// What is taken as clean is decoded as well as what was stripped.
func FuzzIsClean(f *testing.F) {
	f.Add([]byte(`{"status":"pending","expires":"2030-01-01T00:00:00Z","challenges":[{"type":"http-01","url":"u","token":"t","error":{"type":"x"}}]}`))
	f.Add([]byte(`{"status":"valid","challenges":[{"type":"http-01","expires":5,"identifier":{"type":"dns"}}],"wildcard":true}`))
	f.Add([]byte(`{"contact":["mailto:a@example.com"],"orders":"u","notBefore":null,"error":null,"challenges":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !isClean(b) {
			return
		}
		stripped := stripObject(b)
		for _, v := range []any{new(acme.Account), new(acme.Order), new(acme.Authorization), new(acme.Challenge)} {
			if json.Unmarshal(stripped, v) == nil && json.Unmarshal(b, v) != nil {
				t.Errorf("%q is clean and no %T", b, v)
			}
		}
	})
}

func TestIsClean(t *testing.T) {
	for body, want := range map[string]bool{
		`{}`: true,
		`{"status":"pending","challenges":[{"type":"http-01","url":"u"}]}`: true,
		`{"unheard-of":[5],"challenges":[{"type":"new-02","more":{}}]}`:    true,
		`{"challenges":[{"type":"http-01"},null]}`:                         false,
		`{"challenges":[{"url":"u"}]}`:                                     false,
		`{"challenges":[{"type":"http-01","token":5}]}`:                    false,
		`{"challenges":{}}`:                  false,
		`{"expires":"tomorrow"}`:             false,
		`{"notAfter":5}`:                     false,
		`{"contact":"mailto:a@example.com"}`: false,
		`{"wildcard":"yes"}`:                 false,
		`{"profile":5}`:                      false,
		`{"error":"bad"}`:                    false,
		`{"error":{"status":"400"}}`:         false,
		`[]`:                                 false,
		`{`:                                  false,
	} {
		if got := isClean([]byte(body)); got != want {
			t.Errorf("isClean(%s) = %v", body, got)
		}
	}
}
