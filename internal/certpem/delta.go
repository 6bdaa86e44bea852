package certpem

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	maxDelta = 4 << 10 // bytes of a leaf that is a template or a difference to one

	window    = 4 // bytes that are looked up, and the least that is copied
	farWindow = 6 // the least that is copied from where it is not due, which takes more steps

	indexBits = 11 // the index takes 4 kB
)

// template is a leaf that other leaves of its issuer are kept as differences to.
// It is not changed.
//
// A difference is a script of steps: a number of bytes and these bytes, then
// the length of a part of the template and how far it is from where the last part
// ended and the bytes after that would have it. It ends where the leaf does. As
// leaves of one issuer have the same parts in the same order, that distance is
// mostly nought.
type template struct {
	der   []byte
	index [1 << indexBits]uint16 // by hash, where in der such bytes may be
}

// newTemplate copies leaf, which has at least window and at most maxDelta bytes.
func newTemplate(leaf []byte) *template {
	t := &template{der: slices.Clone(leaf)}
	for i := len(leaf) - window; i >= 0; i-- {
		t.index[hash(binary.LittleEndian.Uint32(leaf[i:]))] = uint16(i)
	}
	return t
}

func hash(w uint32) uint32 { return w * 0x9e3779b1 >> (32 - indexBits) }

// encode appends to script what makes leaf, of at most maxDelta bytes, of t. It is
// the same for the same leaf. It is false when that saves less than a sixteenth.
func (t *template) encode(script, leaf []byte) ([]byte, bool) {
	limit := len(script) + len(leaf)*15/16
	done, ahead := 0, 0 // bytes of leaf that are written, and how far on the like of it is in t
	for {
		i, from, n := t.next(leaf, done, ahead)
		if n == 0 {
			break
		}
		// What comes before may be the same, but for the index.
		for i > done && from > 0 && leaf[i-1] == t.der[from-1] {
			i, from, n = i-1, from-1, n+1
		}
		script = append(appendNumber(script, i-done), leaf[done:i]...)
		script = appendNumber(appendNumber(script, n), zigzag(from-i-ahead))
		if len(script) > limit {
			return nil, false
		}
		done, ahead = i+n, from-i
	}
	if done < len(leaf) {
		script = append(appendNumber(script, len(leaf)-done), leaf[done:]...)
	}
	return script, len(script) <= limit
}

// next finds the first bytes of leaf from i on that are in t, too, where they are due
// or wherever the index says. The number is 0 when there are none.
func (t *template) next(leaf []byte, i, ahead int) (at, from, n int) {
	for ; i+window <= len(leaf); i++ {
		w := binary.LittleEndian.Uint32(leaf[i:])
		due := i + ahead
		if due+window <= len(t.der) && binary.LittleEndian.Uint32(t.der[due:]) == w {
			from, n = due, common(leaf[i:], t.der[due:])
		}
		if at := int(t.index[hash(w)]); at != due && binary.LittleEndian.Uint32(t.der[at:]) == w {
			if m := common(leaf[i:], t.der[at:]); m >= farWindow && m > n {
				from, n = at, m
			}
		}
		if n > 0 {
			break
		}
	}
	return i, from, n
}

// common returns how many bytes a and b begin with in common.
func common(a, b []byte) int {
	n, size := 0, min(len(a), len(b))
	for n+8 <= size {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < size && a[n] == b[n] {
		n++
	}
	return n
}

// decode fills leaf, which has the size of what script was made from.
func (t *template) decode(leaf, script []byte) {
	from := 0
	for len(leaf) > 0 {
		n, rest := number(script)
		copy(leaf, rest[:n])
		leaf, script = leaf[n:], rest[n:]
		if len(leaf) == 0 {
			return
		}
		from += n
		n, script = number(script)
		off, rest := number(script)
		script = rest
		from += unzigzag(off)
		copy(leaf, t.der[from:from+n])
		leaf, from = leaf[n:], from+n
	}
}

// appendNumber appends a number below 1<<14. No length or distance, of up to twice
// maxDelta with its sign, is larger.
func appendNumber(b []byte, n int) []byte {
	if n < 0x80 {
		return append(b, byte(n))
	}
	return append(b, byte(n)|0x80, byte(n>>7))
}

// number reads what appendNumber appended.
func number(b []byte) (int, []byte) {
	if b[0] < 0x80 {
		return int(b[0]), b[1:]
	}
	return int(b[0]&0x7f) | int(b[1])<<7, b[2:]
}

func zigzag(n int) int { return n<<1 ^ n>>(bits.UintSize-1) }

func unzigzag(n int) int { return n>>1 ^ -(n & 1) }
