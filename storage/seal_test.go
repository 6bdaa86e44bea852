package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/storagetest"
)

func sealKey(t testing.TB, fill byte) storage.SealKey {
	t.Helper()
	k, err := storage.NewSealKey(bytes.Repeat([]byte{fill}, storage.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, s storage.Storage, o storage.SealOptions) storage.Storage {
	t.Helper()
	out, err := storage.Seal(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSealRefusesOptions(t *testing.T) {
	m, k := storage.NewMemory(), sealKey(t, 1)
	for name, f := range map[string]func() (storage.Storage, error){
		"no storage": func() (storage.Storage, error) {
			return storage.Seal(nil, storage.SealOptions{Keys: []storage.SealKey{k}})
		},
		"no keys": func() (storage.Storage, error) { return storage.Seal(m, storage.SealOptions{}) },
		"zero key": func() (storage.Storage, error) {
			return storage.Seal(m, storage.SealOptions{Keys: []storage.SealKey{k, {}}})
		},
	} {
		if s, err := f(); err == nil || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := storage.NewSealKey(make([]byte, 31)); err == nil {
		t.Error("a secret of 31 bytes is taken")
	}
}

func TestSealHidesValues(t *testing.T) {
	m := storage.NewMemory()
	s := seal(t, m, storage.SealOptions{Keys: []storage.SealKey{sealKey(t, 1)}})
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

// F40.
func TestSealRotation(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	first, second := sealKey(t, 1), sealKey(t, 2)
	before := seal(t, m, storage.SealOptions{Keys: []storage.SealKey{first}})
	both := seal(t, m, storage.SealOptions{Keys: []storage.SealKey{second, first}})
	after := seal(t, m, storage.SealOptions{Keys: []storage.SealKey{second}})
	if err := before.Store(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if v, err := both.Load(ctx, "a"); err != nil || string(v) != "1" {
		t.Errorf("Load with both keys = %q, %v", v, err)
	}
	v, err := after.Load(ctx, "a")
	var unknown *storage.UnknownKeyError
	if v != nil || !errors.As(err, &unknown) || unknown.KeyID != first.ID() || !strings.Contains(err.Error(), first.ID()) {
		t.Errorf("Load with another key = %q, %v; want an error that names the key's ID", v, err)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, storage.ErrDamaged) {
		t.Errorf("a value under another key passes for missing or damaged: %v", err)
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

// F40.
func TestReseal(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	first, second, third := sealKey(t, 1), sealKey(t, 2), sealKey(t, 3)
	put := func(key string, keys ...storage.SealKey) {
		t.Helper()
		s := storage.Storage(m)
		if len(keys) > 0 {
			s = seal(t, m, storage.SealOptions{Keys: keys})
		}
		if err := s.Store(ctx, key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	put("old", first)
	put("new", second, first)
	put("moved", first)
	put("unknown", third)
	put("plain")
	moved, err := m.Load(ctx, "moved")
	if err != nil {
		t.Fatal(err)
	}
	damagedNew, err := m.Load(ctx, "new")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Store(ctx, "damaged", moved), m.Store(ctx, "damaged new", damagedNew)); err != nil {
		t.Fatal(err)
	}
	keys := []storage.SealKey{second, first}
	strict := seal(t, m, storage.SealOptions{Keys: keys})
	lenient := seal(t, m, storage.SealOptions{Keys: keys, AcceptUnsealed: true})
	after := seal(t, m, storage.SealOptions{Keys: keys[:1]})
	tests := []struct {
		key     string
		s       storage.Storage
		changed bool
		want    error
	}{
		{"old", strict, true, nil},
		{"old", strict, false, nil},
		{"new", strict, false, nil},
		{"missing", strict, false, nil},
		{"damaged", strict, false, storage.ErrDamaged},
		{"damaged new", strict, false, storage.ErrDamaged},
		{"plain", strict, false, storage.ErrDamaged},
		{"plain", lenient, true, nil},
		{"plain", lenient, false, nil},
	}
	for _, tt := range tests {
		before, _ := m.Load(ctx, tt.key)
		r, ok := storage.Find[interface {
			Reseal(ctx context.Context, key string) (changed bool, err error)
		}](tt.s)
		if !ok {
			t.Fatal("Reseal is not found")
		}
		changed, err := r.Reseal(ctx, tt.key)
		if changed != tt.changed || !errors.Is(err, tt.want) {
			t.Errorf("Reseal(%q) = %v, %v; want %v, %v", tt.key, changed, err, tt.changed, tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), tt.key) {
			t.Errorf("the error %q does not name %q", err, tt.key)
		}
		if raw, _ := m.Load(ctx, tt.key); bytes.Equal(raw, before) == tt.changed {
			t.Errorf("%q: the stored value has changed: %v, want %v", tt.key, !tt.changed, tt.changed)
		}
		if got, loadErr := after.Load(ctx, tt.key); err == nil && tt.key != "missing" && (loadErr != nil || string(got) != "value of "+tt.key) {
			t.Errorf("Load(%q) with the new key alone = %q, %v", tt.key, got, loadErr)
		}
	}
	r, _ := storage.Find[interface {
		Reseal(ctx context.Context, key string) (changed bool, err error)
	}](strict)
	var unknown *storage.UnknownKeyError
	if changed, err := r.Reseal(ctx, "unknown"); changed || !errors.As(err, &unknown) || unknown.KeyID != third.ID() {
		t.Errorf("Reseal of what an unknown key sealed = %v, %v", changed, err)
	}
}

// F4.
func TestSealDamage(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	s := seal(t, m, storage.SealOptions{Keys: []storage.SealKey{sealKey(t, 1)}})
	for _, key := range []string{"a", "b"} {
		if err := s.Store(ctx, key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	good, err := m.Load(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	header := len("certwright-seal1") + 8 // the rest of it is the ID of the key
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
		var unknown *storage.UnknownKeyError
		if errors.Is(err, storage.ErrDamaged) == errors.As(err, &unknown) {
			t.Errorf("%s: %v; want either ErrDamaged or an UnknownKeyError", name, err)
		}
		if unknown != nil && (len(raw) < header || bytes.Equal(raw[:header], good[:header])) {
			t.Errorf("%s: %v, but the key's ID is as it was", name, err)
		}
	}
	if err := m.Store(ctx, "a", good); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(ctx, "a"); err != nil {
		t.Errorf("the undamaged value: %v", err)
	}
}

func TestSealAcceptsUnsealed(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	keys := []storage.SealKey{sealKey(t, 1)}
	strict := seal(t, m, storage.SealOptions{Keys: keys})
	lenient := seal(t, m, storage.SealOptions{Keys: keys, AcceptUnsealed: true})
	if err := m.Store(ctx, "a", []byte("plain")); err != nil {
		t.Fatal(err)
	}
	if _, err := strict.Load(ctx, "a"); !errors.Is(err, storage.ErrDamaged) {
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

func TestSealLocker(t *testing.T) {
	keys := []storage.SealKey{sealKey(t, 1)}
	if _, ok := seal(t, storage.NewMemory(), storage.SealOptions{Keys: keys}).(storage.Locker); !ok {
		t.Error("a sealed locker is no locker")
	}
	if _, ok := seal(t, struct{ storage.Storage }{storage.NewMemory()}, storage.SealOptions{Keys: keys}).(storage.Locker); ok {
		t.Error("a sealed storage that is no locker has become one")
	}
}

func TestSealKeyHidesSecret(t *testing.T) {
	secret := []byte("0123456789abcdefghijklmnopqrstuv")
	k, err := storage.NewSealKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	o := storage.SealOptions{Keys: []storage.SealKey{k}}
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

// What Seal opens is what it sealed, and nothing else but by a chance of none.
func FuzzSeal(f *testing.F) {
	keys := []storage.SealKey{sealKey(f, 1)}
	m := storage.NewMemory()
	if err := seal(f, m, storage.SealOptions{Keys: keys}).Store(f.Context(), "a", []byte("value")); err != nil {
		f.Fatal(err)
	}
	raw, err := m.Load(f.Context(), "a")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", []byte("value"), raw)
	f.Add("a", []byte{}, []byte("certwright-seal1"))
	f.Add("b", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key string, value, raw []byte) {
		if !storage.ValidKey(key) {
			return
		}
		ctx, m := t.Context(), storage.NewMemory()
		s := seal(t, m, storage.SealOptions{Keys: keys})
		if err := s.Store(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(ctx, key); err != nil || !bytes.Equal(got, value) {
			t.Errorf("sealed %q, opened %q, %v", value, got, err)
		}
		if err := m.Store(ctx, key, raw); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(ctx, key); err == nil && !bytes.HasPrefix(raw, []byte("certwright-seal1")) {
			t.Errorf("opened %q as %q", raw, got)
		}
	})
}

// A store under a lost lease is refused through the seal too.
func TestSealIsFenced(t *testing.T) {
	m := storage.NewMemory()
	locks := &storagetest.LosableLocker{Locker: m}
	s := seal(t, struct {
		storage.Storage
		storage.Locker
	}{m, locks}, storage.SealOptions{Keys: []storage.SealKey{sealKey(t, 1)}})
	l, err := s.(storage.Locker).Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	locks.Lose("x")
	if err := s.Store(context.WithoutCancel(l.Context()), "k", nil); !errors.Is(err, storage.ErrLeaseLost) {
		t.Errorf("Store under a lost lease: %v", err)
	}
	if err := s.Delete(context.WithoutCancel(l.Context()), "k"); !errors.Is(err, storage.ErrLeaseLost) {
		t.Errorf("Delete under a lost lease: %v", err)
	}
}

// What is inside a seal stays visible: the folder's own methods, its Locker (F40).
func TestSealKeepsWhatIsInsideVisible(t *testing.T) {
	dir, err := storage.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := seal(t, seal(t, dir, storage.SealOptions{Keys: []storage.SealKey{sealKey(t, 1)}}), storage.SealOptions{Keys: []storage.SealKey{sealKey(t, 2)}})
	if got, ok := storage.Find[*storage.Dir](s); !ok || got != dir {
		t.Errorf("the folder inside is %v, %v", got, ok)
	}
	if _, ok := storage.LockerOf(s); !ok {
		t.Error("no locker is found")
	}
	if _, ok := storage.Find[*storage.Memory](s); ok {
		t.Error("a Memory is found that is not there")
	}
	if _, ok := storage.LockerOf(nil); ok {
		t.Error("nil has a locker")
	}
	if _, ok := storage.LockerOf(ring{storage.NewMemory()}); ok {
		t.Error("a storage around itself has a locker")
	}
}

// ring is a Storage around itself.
type ring struct{ storage.Storage }

func (r ring) Unwrap() storage.Storage { return r }

// Of two seals around each other each has its keys changed (F40).
func TestResealOfWhatIsSealedTwice(t *testing.T) {
	ctx, m := t.Context(), storage.NewMemory()
	twice := func(outer, inner []storage.SealKey) storage.Storage {
		return seal(t, seal(t, m, storage.SealOptions{Keys: inner}), storage.SealOptions{Keys: outer})
	}
	a, b, c, d := sealKey(t, 1), sealKey(t, 2), sealKey(t, 3), sealKey(t, 4)
	keys := func(k ...storage.SealKey) []storage.SealKey { return k }
	if err := twice(keys(a), keys(b)).Store(ctx, "x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Storage{twice(keys(a), keys(c, b)), twice(keys(d, a), keys(c))} {
		r, _ := storage.Find[interface {
			Reseal(ctx context.Context, key string) (changed bool, err error)
		}](s)
		for _, want := range []bool{true, false} {
			if changed, err := r.Reseal(ctx, "x"); changed != want || err != nil {
				t.Errorf("Reseal = %v, %v; want %v", changed, err, want)
			}
		}
	}
	if v, err := twice(keys(d), keys(c)).Load(ctx, "x"); err != nil || string(v) != "1" {
		t.Errorf("Load with the new keys = %q, %v", v, err)
	}
}
