package certwright

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func sealKey(t testing.TB, fill byte) SealKey {
	t.Helper()
	k, err := NewSealKey(bytes.Repeat([]byte{fill}, SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t testing.TB, s Storage, o SealOptions) Storage {
	t.Helper()
	out, err := Sealed(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSealedRefusesOptions(t *testing.T) {
	m, k := NewMemStorage(), sealKey(t, 1)
	for name, f := range map[string]func() (Storage, error){
		"no storage": func() (Storage, error) { return Sealed(nil, SealOptions{Keys: []SealKey{k}}) },
		"no keys":    func() (Storage, error) { return Sealed(m, SealOptions{}) },
		"zero key":   func() (Storage, error) { return Sealed(m, SealOptions{Keys: []SealKey{k, {}}}) },
	} {
		if s, err := f(); err == nil || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := NewSealKey(make([]byte, 31)); err == nil {
		t.Error("a secret of 31 bytes is taken")
	}
}

func TestSealedHidesValues(t *testing.T) {
	m := NewMemStorage()
	s := sealed(t, m, SealOptions{Keys: []SealKey{sealKey(t, 1)}})
	seen := map[string]bool{}
	for range 10 {
		if err := s.Store(t.Context(), "a", []byte("very secret")); err != nil {
			t.Fatal(err)
		}
		raw, err := m.Load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("secret")) {
			t.Errorf("the stored value is %q", raw)
		}
		if seen[string(raw)] {
			t.Error("the same value is sealed twice alike")
		}
		seen[string(raw)] = true
	}
	if v, err := s.Load(t.Context(), "a"); err != nil || string(v) != "very secret" {
		t.Errorf("Load = %q, %v", v, err)
	}
}

func TestSealedRotation(t *testing.T) {
	ctx, m := t.Context(), NewMemStorage()
	first, second := sealKey(t, 1), sealKey(t, 2)
	before := sealed(t, m, SealOptions{Keys: []SealKey{first}})
	both := sealed(t, m, SealOptions{Keys: []SealKey{second, first}})
	after := sealed(t, m, SealOptions{Keys: []SealKey{second}})
	if err := before.Store(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if v, err := both.Load(ctx, "a"); err != nil || string(v) != "1" {
		t.Errorf("Load with both keys = %q, %v", v, err)
	}
	if v, err := after.Load(ctx, "a"); err == nil || v != nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), first.ID()) {
		t.Errorf("Load with another key = %q, %v; want an error that names the key's ID", v, err)
	}
	if err := both.Store(ctx, "a", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if v, err := after.Load(ctx, "a"); err != nil || string(v) != "2" {
		t.Errorf("Load with the new key = %q, %v", v, err)
	}
	if v, err := before.Load(ctx, "a"); err == nil {
		t.Errorf("the old key opens the new value: %q", v)
	}
}

func TestSealedDamage(t *testing.T) {
	ctx, m := t.Context(), NewMemStorage()
	s := sealed(t, m, SealOptions{Keys: []SealKey{sealKey(t, 1)}})
	for _, key := range []string{"a", "b"} {
		if err := s.Store(ctx, key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	good, err := m.Load(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": {}, "html": []byte("<html>"), "longer": append(bytes.Clone(good), 0)}
	if damaged["moved"], err = m.Load(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		damaged[fmt.Sprintf("flipped at %d", i)] = flipped
		damaged[fmt.Sprintf("cut at %d", i)] = good[:i]
	}
	for name, raw := range damaged {
		if err := m.Store(ctx, "a", raw); err != nil {
			t.Fatal(err)
		}
		v, err := s.Load(ctx, "a")
		if err == nil || v != nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("%s: Load = %q, %v; want an error that names the key", name, v, err)
		}
	}
	if err := m.Store(ctx, "a", good); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(ctx, "a"); err != nil {
		t.Errorf("the undamaged value: %v", err)
	}
}

func TestSealedAcceptsUnsealed(t *testing.T) {
	ctx, m := t.Context(), NewMemStorage()
	keys := []SealKey{sealKey(t, 1)}
	strict := sealed(t, m, SealOptions{Keys: keys})
	lenient := sealed(t, m, SealOptions{Keys: keys, AcceptUnsealed: true})
	if err := m.Store(ctx, "a", []byte("plain")); err != nil {
		t.Fatal(err)
	}
	if _, err := strict.Load(ctx, "a"); !errors.Is(err, ErrUnsealed) {
		t.Errorf("Load of an unsealed value: %v", err)
	}
	if v, err := lenient.Load(ctx, "a"); err != nil || string(v) != "plain" {
		t.Errorf("Load of an unsealed value, accepted = %q, %v", v, err)
	}
	if err := lenient.Store(ctx, "a", []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if v, err := strict.Load(ctx, "a"); err != nil || string(v) != "sealed" {
		t.Errorf("Load = %q, %v", v, err)
	}
	raw, err := m.Load(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Store(ctx, "a", raw[:len(raw)-1]); err != nil {
		t.Fatal(err)
	}
	if v, err := lenient.Load(ctx, "a"); err == nil {
		t.Errorf("a damaged sealed value passes for an unsealed one: %q", v)
	}
}

func TestSealedLocker(t *testing.T) {
	keys := []SealKey{sealKey(t, 1)}
	if _, ok := sealed(t, NewMemStorage(), SealOptions{Keys: keys}).(Locker); !ok {
		t.Error("a sealed locker is no locker")
	}
	if _, ok := sealed(t, struct{ Storage }{NewMemStorage()}, SealOptions{Keys: keys}).(Locker); ok {
		t.Error("a sealed storage that is no locker has become one")
	}
}

func TestSealKeyHidesSecret(t *testing.T) {
	secret := []byte("0123456789abcdefghijklmnopqrstuv")
	k, err := NewSealKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	o := SealOptions{Keys: []SealKey{k}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{k, &k, o} {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, "6789") || strings.Contains(text, "36373839") || !strings.Contains(text, k.ID()) {
				t.Errorf("%s of %T prints %s", verb, v, text)
			}
		}
	}
	if again := sealKey(t, 1); again.ID() != sealKey(t, 1).ID() || again.ID() == k.ID() || again.ID() == "" {
		t.Error("IDs do not go with secrets")
	}
}

// What Sealed opens is what it sealed.
func FuzzSealed(f *testing.F) {
	k := sealKey(f, 1)
	f.Add("a", []byte("value"), k.seal("a", []byte("value")))
	f.Add("a", []byte{}, []byte(sealMagic))
	f.Add("b", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key string, value, raw []byte) {
		s := &sealedStorage{first: k, keys: map[[sealIDLen]byte]SealKey{k.id: k}}
		if got, err := s.open(key, k.seal(key, value)); err != nil || !bytes.Equal(got, value) {
			t.Errorf("sealed %q, opened %q, %v", value, got, err)
		}
		if got, err := s.open(key, raw); err == nil && !bytes.HasPrefix(raw, []byte(sealMagic)) {
			t.Errorf("opened %q as %q", raw, got)
		}
	})
}

var _ Locker = (*sealedLocker)(nil)

// A store under a lost lease is refused through the seal too.
func TestSealedIsFenced(t *testing.T) {
	m := NewMemStorage()
	s := sealed(t, m, SealOptions{Keys: []SealKey{sealKey(t, 1)}})
	l, err := s.(Locker).Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	m.LoseLease("x")
	if err := s.Store(context.WithoutCancel(l.Context()), "k", nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store under a lost lease: %v", err)
	}
}
