package certcache

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
)

// A change puts an entry into the cell of a name or takes it out.
type change struct {
	hash  uint64
	name  string // without "*."
	entry *Entry
	front *front // the entry's, which is far away by the time that it is needed
	wild  bool
	out   bool
}

func compareChanges(a, b change) int {
	if a.hash != b.hash {
		return cmp.Compare(a.hash, b.hash)
	}
	return strings.Compare(a.name, b.name)
}

// apply changes the entries of one name.
func (ch *change) apply(list []*Entry) []*Entry {
	if !ch.out {
		return append(list, ch.entry)
	}
	return slices.DeleteFunc(list, func(e *Entry) bool { return e == ch.entry })
}

// twins reports whether two changes may be of one name.
func twins(changes []change) bool {
	if len(changes) == 1 {
		return false
	}
	mask := 1<<bits.Len(uint(2*len(changes))) - 1
	seen := make([]uint64, mask+1)
	for i := range changes {
		hash := changes[i].hash | 1 // 0 is a free place
		at := int(hash>>1) & mask
		for ; seen[at] != 0; at = (at + 1) & mask {
			if seen[at] == hash {
				return true
			}
		}
		seen[at] = hash
	}
	return false
}

// byName sorts changes. It is sort's own code that does it: package slices would
// link a copy of its own for this type.
type byName []change

func (s byName) Len() int           { return len(s) }
func (s byName) Less(i, j int) bool { return compareChanges(s[i], s[j]) < 0 }
func (s byName) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// A builder makes changed copies of tables, one after the other; what it needs
// for one serves for the next.
type builder struct {
	seed   maphash.Seed
	old    *table
	cells  []cell
	hashes []uint64   // of the names of cells
	more   []*ranking // nil, or one, which may be nil, for each of cells

	replaced []int // cells of old
	placer   placer
}

// build returns a copy of a table with changes, which it may sort; Cache.mu is
// held.
func (b *builder) build(old *table, changes []change) *table {
	b.old, b.cells, b.hashes, b.more, b.replaced = old, b.cells[:0], b.hashes[:0], nil, b.replaced[:0]
	if twins(changes) {
		sort.Stable(byName(changes))
	}
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && compareChanges(changes[0], changes[n]) == 0 {
			n++
		}
		b.change(changes[:n])
		changes = changes[n:]
	}
	slices.Sort(b.replaced)
	replaced := b.replaced
	for i := range old.cells {
		if len(replaced) > 0 && replaced[0] == i {
			replaced = replaced[1:]
		} else if c := old.cells[i]; c != (cell{}) {
			b.add(maphash.String(b.seed, c.name), c, old.rankingOf(i))
		}
	}
	return b.table()
}

func (b *builder) add(hash uint64, c cell, r *ranking) {
	if r != nil && b.more == nil {
		b.more = make([]*ranking, len(b.cells))
	}
	b.cells, b.hashes = append(b.cells, c), append(b.hashes, hash)
	if b.more != nil {
		b.more = append(b.more, r)
	}
}

// change adds what the changes of one name make of its cell.
func (b *builder) change(changes []change) {
	ch := &changes[0]
	i := b.old.find(ch.hash, ch.name)
	if i < 0 && len(changes) == 1 && !ch.wild && !ch.out {
		b.add(ch.hash, cell{name: ch.name, only: ch.entry, front: ch.front}, nil)
		return
	}
	made := cell{name: ch.name}
	var exact, wild []*Entry
	if i >= 0 {
		b.replaced = append(b.replaced, i)
		made.name = b.old.cells[i].name
		if r := b.old.rankingOf(i); r != nil {
			exact, wild = slices.Clone(r.ofName()), slices.Clone(r.ofWildcard())
		} else {
			exact = []*Entry{b.old.cells[i].only}
		}
	}
	for i := range changes {
		if ch := &changes[i]; ch.wild {
			wild = ch.apply(wild)
		} else {
			exact = ch.apply(exact)
		}
	}
	if len(exact) == 1 {
		made.only, made.front = exact[0], exact[0].front.Load()
	}
	switch {
	case len(exact)+len(wild) == 0:
	case len(exact) == 1 && len(wild) == 0:
		b.add(ch.hash, made, nil)
	default:
		b.add(ch.hash, made, rank(exact, wild))
	}
}

// Of ten places eight are used, and three names share a bucket, more or less.
// With more of either it takes long to find a move for the last bucket.
const (
	usedOfTen = 8
	perBucket = 2
)

// table puts the cells into places, those of the fullest buckets first: the more
// there are in one, the fewer moves find all of them a free place.
func (b *builder) table() *table {
	n := len(b.cells)
	t := &table{moves: make([]uint8, n/perBucket+1), places: n*10/usedOfTen + 1, used: n}
	t.cells, t.tags = make([]cell, t.places), make([]uint8, t.places)
	if b.more != nil {
		t.more = make([]atomic.Pointer[ranking], t.places)
	}
	p := &b.placer
	p.reset(t, n)
	most := int32(0)
	for i, hash := range b.hashes {
		k := bucket(hash, len(t.moves))
		p.next[i], p.heads[k] = p.heads[k], int32(i+1)
		p.sizes[k]++
		most = max(most, p.sizes[k])
	}
	for ; most > 0; most-- {
		for k, size := range p.sizes {
			if size == most {
				t.moves[k] = p.place(b.hashes, p.heads[k])
				b.put(t, p.heads[k])
			}
		}
	}
	return t
}

// put puts the cells of a bucket where the placer has found places, or, when it
// has not, behind all places.
func (b *builder) put(t *table, head int32) {
	for n, i := 0, head; i > 0; n, i = n+1, b.placer.next[i-1] {
		var at int
		if len(b.placer.at) > 0 {
			at = b.placer.at[n]
			t.tags[at] = tag(b.hashes[i-1])
		} else {
			at = len(t.cells)
			t.cells = append(t.cells, cell{})
			if t.more != nil {
				t.more = append(t.more, atomic.Pointer[ranking]{})
			}
		}
		t.cells[at] = b.cells[i-1]
		if t.more != nil {
			t.more[at].Store(b.more[i-1])
		}
	}
}

// A placer finds places in a table for the cells of a builder.
type placer struct {
	table *table
	taken []bool  // places
	next  []int32 // the cells of a bucket are a list of their indices + 1
	heads []int32 // of the lists of buckets
	sizes []int32 // of buckets
	at    []int   // places of the cells of one bucket
}

func (p *placer) reset(t *table, cells int) {
	p.table = t
	p.taken, p.next = zeroed(p.taken, t.places), zeroed(p.next, cells)
	p.heads, p.sizes = zeroed(p.heads, len(t.moves)), zeroed(p.sizes, len(t.moves))
}

func zeroed[T any](list []T, n int) []T {
	list = slices.Grow(list[:0], n)[:n]
	clear(list)
	return list
}

// place returns a move with which all cells of a bucket have free places, which
// are in p.at then. That is empty if no move does.
func (p *placer) place(hashes []uint64, head int32) uint8 {
	for move := range 256 {
		if p.try(hashes, head, uint8(move)) {
			return uint8(move)
		}
	}
	return 0
}

// try takes the places of a bucket's cells with a move. When they are not all
// free it takes none.
func (p *placer) try(hashes []uint64, head int32, move uint8) bool {
	p.at = p.at[:0]
	for i := head; i > 0; i = p.next[i-1] {
		at := p.table.place(hashes[i-1], move)
		if p.taken[at] {
			for _, at := range p.at {
				p.taken[at] = false
			}
			p.at = p.at[:0]
			return false
		}
		p.taken[at] = true
		p.at = append(p.at, at)
	}
	return true
}
