package certwright_test

import (
	"context"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
)

// alpnAnswer returns the digest of a key authorization with which a validation
// handshake for a name is answered (RFC 8737 §3).
func alpnAnswer(m *Manager, name string) ([]byte, error) {
	hello := helloFor(name, "")
	hello.SupportedProtos = []string{alpnProto}
	cert, err := m.GetCertificate(hello)
	if err != nil {
		return nil, err
	}
	for _, ext := range cert.Leaf.Extensions {
		if ext.Id.String() == "1.3.6.1.5.5.7.1.31" {
			var digest []byte
			_, err := asn1.Unmarshal(ext.Value, &digest)
			return digest, err
		}
	}
	return nil, errors.New("the certificate lacks id-pe-acmeIdentifier")
}

// A validation handshake does not say for which of several orders it is: their
// challenges for one name take turns, and one that is given up lets nobody else
// in.
func TestChallengesForOneNameTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example.com"
		var m *Manager
		var mu sync.Mutex
		validations := 0
		blocked, release := make(chan struct{}), make(chan struct{})
		_, conf := newFake(t, fakeca.Options{Challenges: []string{challenge.TLSALPN01}, Validate: func(ctx context.Context, ch fakeca.ChallengeInfo) error {
			want := sha256.Sum256([]byte(ch.KeyAuthorization))
			check := func() error {
				got, err := alpnAnswer(m, ch.Identifier.Value)
				if err != nil || string(got) != string(want[:]) {
					return fmt.Errorf("answered with another challenge's digest, or with none: %w", err)
				}
				return nil
			}
			mu.Lock()
			isFirst := ch.Identifier.Value == name && validations == 0
			if ch.Identifier.Value == name {
				validations++
			}
			mu.Unlock()
			if isFirst {
				close(blocked)
				<-release
			}
			return check()
		}})
		m = start(t, conf)
		results := make(chan error, 3)
		begin := func(names ...string) {
			go func() { results <- m.Manage(t.Context(), Spec{Names: names}) }()
			synctest.Wait()
		}
		begin(name, "x.example.com")
		<-blocked
		begin(name, "b.example.com")
		begin(name, "c.example.com")
		if err := m.Unmanage(name, "b.example.com"); err == nil { // the other two stay
			t.Error("Unmanage said nothing of the certificates that share the name")
		}
		if err := <-results; !errors.Is(err, ErrNotManaged) {
			t.Errorf("who waited for what was unmanaged was told %v", err)
		}
		synctest.Wait()
		mu.Lock()
		if validations != 1 {
			t.Errorf("%d validations at once", validations)
		}
		mu.Unlock()
		close(release)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if validations != 2 {
			t.Errorf("%d validations; want one for each certificate", validations)
		}
		if _, err := alpnAnswer(m, name); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("a challenge is answered after its clean-up: %v", err)
		}
	})
}
