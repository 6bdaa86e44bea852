package records_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/certwright/certwright/internal/records"
)

// FuzzBundle reads any file, as it is and with a first line that fits: it gives a
// bundle with names and a leaf, or an error that says what is wrong.
func FuzzBundle(f *testing.F) {
	b, value := file(f, newFakeCA(f), "a.example")
	f.Add(value)
	f.Add(value[:len(value)/2])
	f.Add([]byte("certwright bundle 2\n"))
	f.Add([]byte(`{"names":["a.example"],"key":"p256"}` + "\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"))
	id := b.ID()
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := fmt.Appendf(nil, "certwright bundle 1 sha256 %x size %d\n%s", sha256.Sum256(data), len(data), data)
		for _, value := range [][]byte{data, whole} {
			got, err := loadFile(t, id, value)
			var damaged *records.DamagedError
			if err != nil && !errors.As(err, &damaged) && !errors.Is(err, records.ErrNewer) {
				t.Fatal(err)
			}
			if got.Bundle == nil {
				if err == nil {
					t.Fatal("neither a bundle nor an error")
				}
				continue
			}
			if got.ID() != id {
				t.Fatalf("it is %q", got.ID())
			}
			_ = got.Serial()
			_, leafErr := got.Leaf()
			_, certErr := got.Certificate()
			if (got.Mended != nil || err != nil) && (leafErr != nil || certErr != nil) {
				t.Fatalf("read as PEM text, and cannot be served: %v, %v", leafErr, certErr)
			}
			_, _ = got.Issuer()
		}
	})
}

// FuzzRecord reads any value as a record that is JSON.
func FuzzRecord(f *testing.F) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	check(f, r.StoreHold(f.Context(), &records.Hold{Account: "a", Subject: "a.example", Until: 5}))
	for _, value := range s.values {
		f.Add(value)
	}
	f.Add([]byte("certwright hold 2 x"))
	f.Add([]byte("certwright hold 1 sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 size 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newFakeStorage()
		r := records.New(s, records.Options{})
		for key := range map[string]bool{"v1/changes/x": true, "v1/cleaned": true} {
			s.put(key, data)
		}
		var damaged *records.DamagedError
		if _, err := r.LoadCleaned(t.Context()); err != nil && !errors.As(err, &damaged) && !errors.Is(err, records.ErrNewer) {
			t.Fatal(err)
		}
		c := r.NewChanges("own")
		_, _, err := c.Poll(t.Context())
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, records.ErrNewer) {
			t.Fatal(err)
		}
		_, _, _ = c.Poll(t.Context())
		// What is whole but nonsense must not be trusted with lengths.
		s.put("v1/changes/x", fmt.Appendf(nil, "certwright changes 1 sha256 %x size %d\n%s", sha256.Sum256(data), len(data), data))
		_, _, _ = c.Poll(t.Context())
	})
}
