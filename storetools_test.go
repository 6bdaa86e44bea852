package certwright_test

import (
	"testing"

	. "github.com/certwright/certwright"
)

func mustStore(t *testing.T, s Storage, key string, value []byte) {
	t.Helper()
	if err := s.Store(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func storeAll(t *testing.T, s Storage, values map[string][]byte) {
	t.Helper()
	for key, value := range values {
		mustStore(t, s, key, value)
	}
}

func mustLoad(t *testing.T, s Storage, key string) []byte {
	t.Helper()
	value, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
