package records

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/certpem"
)

// Kind is a kind of record: what its keys begin with, behind "v1/".
type Kind string

// The kinds of records that there are many of. Challenges are package challenge's.
const (
	Certs        Kind = "certs"
	Orders       Kind = "orders"
	Holds        Kind = "holds"
	RenewalInfos Kind = "renewal-info"
	Staples      Kind = "staples"
	Accounts     Kind = "accounts"
	ChangeLists  Kind = "changes"
	Challenges   Kind = "challenges"
	Journal      Kind = "journal"
)

const (
	root       = "v1/"
	keyCleaned = root + "cleaned"
	keyProbe   = root + "probe"

	certSuffix = ".pem"
	prevSuffix = "+prev"

	// longestPlain is the longest text that is a part of a key as it is. A
	// component has room for 255 bytes, and there is more in it.
	longestPlain = 200
)

// ID returns the identity of a bundle: its set of names and its key type. It is
// "<name>+<key type>", and "+<digest of the set>+<key type>" for several names
// and for one of more than 200 bytes. The order of the names does not matter,
// nor that one comes twice. They are normalised. An empty key type is P256.
func ID(names []string, key certpem.KeyType) string {
	if key == "" {
		key = certpem.P256
	}
	if len(names) == 1 && len(names[0]) <= longestPlain {
		return escape(names[0]) + "+" + string(key)
	}
	set := slices.Clone(names)
	slices.Sort(set)
	set = slices.Compact(set)
	if len(set) == 1 && len(set[0]) <= longestPlain {
		return escape(set[0]) + "+" + string(key)
	}
	return "+" + digest(strings.Join(set, ",")) + "+" + string(key)
}

// SolverLock returns the name of a lease of a Solver's, which meets no other.
func SolverLock(name string) string { return "solver/" + component(name) }

// IssueLock returns the name of the lease under which the bundle of that ID is
// issued and stored.
func IssueLock(id string) string { return "issue/" + id }

// splitID takes an ID apart. The name is empty when the ID has a digest.
func splitID(id string) (name string, key certpem.KeyType, ok bool) {
	i := strings.LastIndexByte(id, '+')
	if i < 1 {
		return "", "", false
	}
	name, key = id[:i], certpem.KeyType(id[i+1:])
	if name[0] == '+' {
		name = ""
	}
	_, ok = newKeyType(key)
	return unescape(name), key, ok
}

// setOf returns the part of an ID that stands for the set of names.
func setOf(id string) string { return id[:strings.LastIndexByte(id, '+')] }

// escape writes a name with characters that any backend takes. No name has an
// "@".
func escape(name string) string { return strings.ReplaceAll(name, ":", "@") }

func unescape(name string) string { return strings.ReplaceAll(name, "@", ":") }

// digest returns 128 bits of a text's SHA-256 in hexadecimal.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// mark returns 32 bits of a text's SHA-256 in hexadecimal, which tell the few
// issuers of one storage apart.
func mark(text string) string { return digest(text)[:8] }

// component returns a text as a part of a key: as it is when that will do, and
// else what can be read of it with a digest.
func component(text string) string {
	plain := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(".-_+*@", c):
			return c
		}
		return '-'
	}, text)
	if plain == text && len(text) <= longestPlain && strings.Trim(text, ".") != "" {
		return text
	}
	return plain[:min(len(plain), longestPlain/2)] + "+" + digest(text)
}

func keyOf(kind Kind, part string) string { return root + string(kind) + "/" + part }

func certKey(id string) string { return keyOf(Certs, id+certSuffix) }

func prevKey(id string) string { return keyOf(Certs, id+prevSuffix+certSuffix) }

func orderKey(id, issuer string) string { return keyOf(Orders, id+"+"+mark(issuer)) }

func journalKey(e *JournalEntry) string {
	return keyOf(Journal, e.Bundle+"+"+digest(fmt.Sprintf("%q %q %q %t %q", e.Issuer, e.Type, e.Name, e.Wildcard, e.Token)))
}

func holdKey(account, subject string) string {
	if subject != "" {
		subject = component(escape(subject))
	}
	return keyOf(Holds, subject+"+"+mark(account))
}
