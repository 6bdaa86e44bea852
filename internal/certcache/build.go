package certcache

import (
	"cmp"
	"slices"
	"strings"
)

// A change puts an entry into the cell of a name or takes it out.
type change struct {
	hash  uint64
	name  string // without "*."
	entry *Entry
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
func (ch *change) apply(list []ranked) []ranked {
	if !ch.out {
		return append(list, ranked{entry: ch.entry})
	}
	return slices.DeleteFunc(list, func(r ranked) bool { return r.entry == ch.entry })
}

// with returns a copy of t with changes, which it sorts; Cache.mu is held.
func (t *table) with(changes []change) *table {
	slices.SortFunc(changes, compareChanges)
	b := builder{old: t, cells: make([]cell, 0, t.used+len(changes))}
	var replaced []int // cells of t
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && compareChanges(changes[0], changes[n]) == 0 {
			n++
		}
		i := t.find(changes[0].hash, changes[0].name)
		if i >= 0 {
			replaced = append(replaced, i)
		}
		b.change(i, changes[:n])
		changes = changes[n:]
	}
	slices.Sort(replaced)
	for i := range t.cells {
		if len(replaced) > 0 && replaced[0] == i {
			replaced = replaced[1:]
		} else if c := t.cells[i]; c != (cell{}) {
			b.add(c, t.moreOf(i))
		}
	}
	return b.table()
}

// A builder makes a table's changed copy.
type builder struct {
	old   *table
	cells []cell
	more  []*more // nil, or one, which may be nil, for each of cells
}

func (b *builder) add(c cell, p *more) {
	if p != nil && b.more == nil {
		b.more = make([]*more, len(b.cells), cap(b.cells))
	}
	b.cells = append(b.cells, c)
	if b.more != nil {
		b.more = append(b.more, p)
	}
}

// change adds what the changes of one name make of its cell, of which i is the
// index, -1 when there is none.
func (b *builder) change(i int, changes []change) {
	ch := &changes[0]
	if i < 0 && len(changes) == 1 && !ch.wild && !ch.out {
		b.add(cell{hash: ch.hash, name: ch.name, only: ch.entry}, nil)
		return
	}
	made, p := cell{hash: ch.hash, name: ch.name}, (*more)(nil)
	var exact, wild []ranked
	if i >= 0 {
		made.name = b.old.cells[i].name
		if p = b.old.moreOf(i); p != nil {
			exact, wild = slices.Clone(p.Load().exact.list), slices.Clone(p.Load().wild.list)
		} else {
			exact = []ranked{{entry: b.old.cells[i].only}}
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
		made.only = exact[0].entry
	}
	switch {
	case len(exact)+len(wild) == 0:
	case len(exact) == 1 && len(wild) == 0:
		b.add(made, nil)
	default:
		if p == nil {
			p = new(more)
		}
		p.Store(&ranking{exact: newGroup(exact), wild: newGroup(wild)})
		b.add(made, p)
	}
}

// Of ten places seven are used, and three names share a bucket, more or less.
// With more of either it takes long to find a move for the last bucket.
const (
	usedOfTen = 7
	perBucket = 3
)

// table puts the cells into places, those of the fullest buckets first: the more
// there are in one, the fewer moves find all of them a free place.
func (b *builder) table() *table {
	n := len(b.cells)
	t := &table{moves: make([]uint8, n/perBucket+1), places: n*10/usedOfTen + 1, used: n}
	t.cells = make([]cell, t.places)
	if b.more != nil {
		t.more = make([]*more, t.places)
	}
	p := placer{builder: b, table: t, taken: make([]bool, t.places), next: make([]int32, n)}
	heads, sizes, most := make([]int32, len(t.moves)), make([]int32, len(t.moves)), int32(0)
	for i := range b.cells {
		k := bucket(b.cells[i].hash, len(t.moves))
		p.next[i], heads[k] = heads[k], int32(i+1)
		sizes[k]++
		most = max(most, sizes[k])
	}
	for ; most > 0; most-- {
		for k, size := range sizes {
			if size == most {
				p.place(k, heads[k])
			}
		}
	}
	return t
}

// A placer places the cells of a builder in a table.
type placer struct {
	*builder
	*table
	taken []bool  // places
	next  []int32 // links the builder's cells of a bucket, by index + 1
	at    []int   // places of the cells of one bucket
}

// place finds the move with which all cells of a bucket have free places. If
// none does they go behind the places.
func (p *placer) place(bucket int, head int32) {
	for move := range 256 {
		if p.try(head, uint8(move)) {
			p.moves[bucket] = uint8(move)
			break
		}
	}
	for i, k := head, 0; i > 0; i, k = p.next[i-1], k+1 {
		from := int(i - 1)
		if len(p.at) > 0 {
			p.table.cells[p.at[k]] = p.builder.cells[from]
			if p.table.more != nil {
				p.table.more[p.at[k]] = p.builder.more[from]
			}
			continue
		}
		p.table.cells = append(p.table.cells, p.builder.cells[from])
		if p.table.more != nil {
			p.table.more = append(p.table.more, p.builder.more[from])
		}
	}
}

// try takes the places of a bucket's cells with a move. When they are not all
// free it takes none, and p.at is empty.
func (p *placer) try(head int32, move uint8) bool {
	p.at = p.at[:0]
	for i := head; i > 0; i = p.next[i-1] {
		at := p.table.place(p.builder.cells[i-1].hash, move)
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
