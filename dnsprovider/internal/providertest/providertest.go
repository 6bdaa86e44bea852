// Package providertest is what the tests of the DNS providers have in common.
package providertest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

// Texts are TXT records of one name, as the Solver writes them.
func Texts(name string, texts ...string) (out []libdns.Record) {
	for _, text := range texts {
		out = append(out, libdns.TXT{Name: name, TTL: 2 * time.Minute, Text: text})
	}
	return out
}

// WantError looks for texts in an error, and that no secret is in it or below it,
// however it is printed.
func WantError(t testing.TB, err error, secrets []string, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in the error %q", text, err)
		}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, secret := range secrets {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), secret) {
				t.Errorf("a secret is in the error %q", e)
			}
		}
	}
}
