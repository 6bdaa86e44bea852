package storage

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
)

// A sealed value is, one after the other:
//
//	16 bytes  the text "certwright-seal1"
//	 8 bytes  the ID of the key, derived from it
//	12 bytes  the nonce, random
//	 n bytes  the value, encrypted with AES-256-GCM
//	16 bytes  its tag
//
// The associated data is everything before the nonce, and the storage key.
const (
	sealMagic  = "certwright-seal1"
	sealIDLen  = 8
	sealHeader = len(sealMagic) + sealIDLen
)

// SealKeySize is the length of a SealKey's secret in bytes.
const SealKeySize = 32

// UnknownKeyError means that a value is sealed with a key that was not given. The
// value is not damaged: whoever has the key can open it.
type UnknownKeyError struct {
	KeyID string // as SealKey.ID gives it
}

// Error implements error.
func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("sealed with a key that is not given, of ID %s: add it to SealOptions.Keys", e.KeyID)
}

// SealKey is a key that seals values: 32 random bytes, kept apart from the
// storage. It never shows its secret when it is printed. Its zero value is
// refused. It is immutable and safe for concurrent use.
type SealKey struct {
	id   [sealIDLen]byte
	aead cipher.AEAD
}

// NewSealKey returns the key with the given secret, of SealKeySize bytes from a
// cryptographic random source: a password is not one. The key does not keep the
// slice.
func NewSealKey(secret []byte) (SealKey, error) {
	if len(secret) != SealKeySize {
		return SealKey{}, fmt.Errorf("making seal key: secret of %d bytes, want %d", len(secret), SealKeySize)
	}
	// RFC 5869: what the key is known by says nothing of what it encrypts with.
	id, err := hkdf.Key(sha256.New, secret, nil, "certwright seal 1 id", sealIDLen)
	if err != nil {
		return SealKey{}, fmt.Errorf("making seal key: %w", err)
	}
	sub, err := hkdf.Key(sha256.New, secret, nil, "certwright seal 1 aes-256-gcm", SealKeySize)
	if err != nil {
		return SealKey{}, fmt.Errorf("making seal key: %w", err)
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		return SealKey{}, fmt.Errorf("making seal key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return SealKey{}, fmt.Errorf("making seal key: %w", err)
	}
	return SealKey{id: [sealIDLen]byte(id), aead: aead}, nil
}

// ID returns the key's public name, in hexadecimal. It is the same for the same
// secret, and is written into each value. For the zero SealKey it is empty.
func (k SealKey) ID() string {
	if k.aead == nil {
		return ""
	}
	return hex.EncodeToString(k.id[:])
}

// Format implements fmt.Formatter, for every verb, with the key's ID alone.
func (k SealKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "SealKey(%s)", k.ID())
}

// SealOptions is how a sealed storage works. Keys must not be empty.
type SealOptions struct {
	// Keys are the keys that open values. The first one seals. To rotate, put a
	// new key first, and drop the old one when every value has been stored anew,
	// which Reseal does: see Seal.
	Keys []SealKey

	// AcceptUnsealed lets Load return values that are not sealed, while a storage
	// that was in use before is taken into sealing. When it is false they are
	// errors that satisfy errors.Is(err, ErrDamaged).
	AcceptUnsealed bool
}

// Seal returns a Storage that keeps its values in inner encrypted and
// authenticated, each bound to its key. A value that was moved to another key,
// cut or changed, or is not sealed, is an error that satisfies errors.Is(err,
// ErrDamaged) and names the key; one that was sealed with a key not given is an
// *UnknownKeyError. Neither is ever fs.ErrNotExist. An older value put back at
// its own key is not noticed, and keys are not encrypted.
//
// The result is an Unwrapper, and a Locker when [LockerOf] finds one for inner. It
// has the method Reseal(ctx, key) (changed bool, err error) too, which seals one
// value with the first key, and which [Find] finds:
//
//	Find[interface{ Reseal(context.Context, string) (bool, error) }](s)
//
// It is as safe for concurrent use as inner, which stays the caller's to close.
func Seal(inner Storage, options SealOptions) (Storage, error) {
	if inner == nil {
		return nil, errors.New("sealing storage: storage is nil")
	}
	if len(options.Keys) == 0 {
		return nil, errors.New("sealing storage: no keys given")
	}
	s := &sealed{
		Storage:        inner,
		first:          options.Keys[0],
		keys:           make(map[[sealIDLen]byte]SealKey),
		acceptUnsealed: options.AcceptUnsealed,
	}
	for i, k := range options.Keys {
		if k.aead == nil {
			return nil, fmt.Errorf("sealing storage: key %d is zero: use NewSealKey", i)
		}
		s.keys[k.id] = k
	}
	if locker, ok := LockerOf(inner); ok {
		return &sealedLocker{sealed: s, Locker: locker}, nil
	}
	return s, nil
}

// sealed seals what goes into its Storage. It is immutable.
type sealed struct {
	Storage
	first          SealKey
	keys           map[[sealIDLen]byte]SealKey
	acceptUnsealed bool
}

// sealedLocker is a sealed over a storage that has a Locker.
type sealedLocker struct {
	*sealed
	Locker
}

// resealer is what a Storage is that Seal returns.
type resealer interface {
	Reseal(ctx context.Context, key string) (changed bool, err error)
}

// Unwrap implements Unwrapper.
func (s *sealed) Unwrap() Storage { return s.Storage }

// Load implements Storage.
func (s *sealed) Load(ctx context.Context, key string) ([]byte, error) {
	text, err := s.Storage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	value, err := s.open(key, text)
	if err != nil {
		return nil, fmt.Errorf("unsealing key %q: %w", key, err)
	}
	return value, nil
}

// Store implements Storage.
func (s *sealed) Store(ctx context.Context, key string, value []byte) error {
	return s.Storage.Store(ctx, key, s.first.seal(key, value))
}

// Reseal stores the value at key anew when the first key did not seal it, and
// reports whether it did. A value that is missing is nothing to do. The errors are
// those of Load and Store. Call it under the lease that other writers of the key
// take.
func (s *sealed) Reseal(ctx context.Context, key string) (changed bool, err error) {
	text, err := s.Storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var value []byte
	if err == nil {
		value, err = s.open(key, text)
	}
	if err == nil {
		if bytes.HasPrefix(text, s.first.header()) {
			if inner, ok := Find[resealer](s.Storage); ok { // of keys of its own
				return inner.Reseal(ctx, key)
			}
			return false, nil
		}
		err = s.Store(ctx, key, value)
	}
	if err != nil {
		return false, fmt.Errorf("resealing key %q: %w", key, err)
	}
	return true, nil
}

// open returns the value of a sealed one.
func (s *sealed) open(key string, text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte(sealMagic)) {
		if s.acceptUnsealed {
			return text, nil
		}
		return nil, fmt.Errorf("value is not sealed: %w", ErrDamaged)
	}
	if len(text) < sealHeader {
		return nil, fmt.Errorf("sealed value is cut: %w", ErrDamaged)
	}
	id := [sealIDLen]byte(text[len(sealMagic):sealHeader])
	k, ok := s.keys[id]
	if !ok {
		return nil, &UnknownKeyError{KeyID: hex.EncodeToString(id[:])}
	}
	value, err := k.aead.Open(nil, nil, text[sealHeader:], k.associated(key))
	if err != nil {
		return nil, fmt.Errorf("sealed value was cut or changed, or is another key's: %w", ErrDamaged)
	}
	return value, nil
}

// seal returns the sealed value for the storage key.
func (k SealKey) seal(key string, value []byte) []byte {
	return k.aead.Seal(k.header(), nil, value, k.associated(key))
}

// header returns what a value begins with that the key has sealed.
func (k SealKey) header() []byte { return append([]byte(sealMagic), k.id[:]...) }

// associated returns what is authenticated beside the value.
func (k SealKey) associated(key string) []byte { return append(k.header(), key...) }
