package certwright

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
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

// ErrUnsealed means that a value in a sealed storage is not sealed.
var ErrUnsealed = errors.New("certwright: value is not sealed")

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
	aead, err := cipher.NewGCM(block)
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
	return fmt.Sprintf("%x", k.id)
}

// Format implements fmt.Formatter, for every verb, with the key's ID alone.
func (k SealKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "SealKey(%s)", k.ID())
}

// SealOptions is how a sealed storage works. Keys must not be empty.
type SealOptions struct {
	// Keys are the keys that open values. The first one seals. To rotate, put a
	// new key first, and drop the old one when every value has been stored anew.
	Keys []SealKey

	// AcceptUnsealed lets Load return values that are not sealed, while a storage
	// that was in use before is taken into sealing. When it is false they are
	// errors that satisfy errors.Is(err, ErrUnsealed).
	AcceptUnsealed bool
}

// Sealed returns a Storage that keeps its values in storage encrypted and
// authenticated, each bound to its key. A value that was sealed with a key not
// given, moved to another key, cut or changed is an error that names the key,
// and never fs.ErrNotExist. An older value put back at its own key is not
// noticed, and keys are not encrypted.
//
// The result is a Locker when storage is one. It is as safe for concurrent use
// as storage, which stays the caller's to close.
func Sealed(storage Storage, options SealOptions) (Storage, error) {
	if storage == nil {
		return nil, errors.New("sealing storage: storage is nil")
	}
	if len(options.Keys) == 0 {
		return nil, errors.New("sealing storage: no keys given")
	}
	s := &sealedStorage{
		Storage:        storage,
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
	if locker, ok := storage.(Locker); ok {
		return &sealedLocker{sealedStorage: s, Locker: locker}, nil
	}
	return s, nil
}

// sealedStorage seals what goes into its Storage. It is immutable.
type sealedStorage struct {
	Storage
	first          SealKey
	keys           map[[sealIDLen]byte]SealKey
	acceptUnsealed bool
}

// sealedLocker is a sealedStorage over a storage that is a Locker too.
type sealedLocker struct {
	*sealedStorage
	Locker
}

// Load implements Storage.
func (s *sealedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	sealed, err := s.Storage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	value, err := s.open(key, sealed)
	if err != nil {
		return nil, fmt.Errorf("unsealing key %q: %w", key, err)
	}
	return value, nil
}

// Store implements Storage.
func (s *sealedStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.Storage.Store(ctx, key, s.first.seal(key, value))
}

// open returns the value of a sealed one.
func (s *sealedStorage) open(key string, sealed []byte) ([]byte, error) {
	if !bytes.HasPrefix(sealed, []byte(sealMagic)) {
		if s.acceptUnsealed {
			return sealed, nil
		}
		return nil, ErrUnsealed
	}
	if len(sealed) < sealHeader {
		return nil, errors.New("sealed value is cut")
	}
	id := [sealIDLen]byte(sealed[len(sealMagic):sealHeader])
	k, ok := s.keys[id]
	if !ok {
		return nil, fmt.Errorf("sealed with another key, of ID %x", id)
	}
	nonce, text, ok := cutAt(sealed[sealHeader:], k.aead.NonceSize())
	if !ok {
		return nil, errors.New("sealed value is cut")
	}
	value, err := k.aead.Open(nil, nonce, text, k.associated(key))
	if err != nil {
		return nil, errors.New("sealed value was changed, or is another key's")
	}
	return value, nil
}

// seal returns the sealed value for the storage key.
func (k SealKey) seal(key string, value []byte) []byte {
	sealed := make([]byte, 0, sealHeader+k.aead.NonceSize()+len(value)+k.aead.Overhead())
	sealed = append(sealed, sealMagic...)
	sealed = append(sealed, k.id[:]...)
	nonce := make([]byte, k.aead.NonceSize())
	_, _ = rand.Read(nonce) // it never fails: see its documentation
	sealed = append(sealed, nonce...)
	return k.aead.Seal(sealed, nonce, value, k.associated(key))
}

// associated returns what is authenticated beside the value.
func (k SealKey) associated(key string) []byte {
	return append(append([]byte(sealMagic), k.id[:]...), key...)
}

// cutAt splits b after n bytes.
func cutAt(b []byte, n int) (before, after []byte, ok bool) {
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
