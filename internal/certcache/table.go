package certcache

// A table is an immutable hash table with open addressing. The standard map
// would hash every name a second time after the choice of its shard.
type table struct {
	cells []cell // as many as a power of two, at least one third of them empty
	used  int
}

// A cell is empty when it has no slot. The name is in the slot: most cells that
// a search passes are told by their hash, and this way more of them are in one
// cache line.
type cell struct {
	hash uint64
	slot *slot
}

// newTable returns a table with room for n names, to be filled with put before
// anyone else sees it.
func newTable(n int) *table {
	size := 1
	for 2*size < 3*n {
		size *= 2
	}
	return &table{cells: make([]cell, size)}
}

// find returns the slot of a name, or nil. It takes bytes too, so that nobody
// needs to make a string of them.
func find[T string | []byte](t *table, hash uint64, name T) *slot {
	mask := uint64(len(t.cells) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		c := &t.cells[i]
		if c.slot == nil || c.hash == hash && c.slot.name == string(name) {
			return c.slot
		}
	}
}

// put adds a cell or replaces the one of its name.
func (t *table) put(in cell) {
	mask := uint64(len(t.cells) - 1)
	for i := in.hash & mask; ; i = (i + 1) & mask {
		c := &t.cells[i]
		if c.slot == nil {
			*c = in
			t.used++
			return
		}
		if c.hash == in.hash && c.slot.name == in.slot.name {
			*c = in
			return
		}
	}
}

// with returns a copy of t with changes; an empty slot takes its name out.
func (t *table) with(changes []cell) *table {
	gone := make(map[string]struct{})
	for _, c := range changes {
		if c.slot.empty() {
			gone[c.slot.name] = struct{}{}
		}
	}
	out := newTable(t.used + len(changes))
	for _, c := range t.cells {
		if c.slot == nil {
			continue
		}
		if len(gone) > 0 {
			if _, ok := gone[c.slot.name]; ok {
				continue
			}
		}
		out.put(c)
	}
	for _, c := range changes {
		if !c.slot.empty() {
			out.put(c)
		}
	}
	return out
}
