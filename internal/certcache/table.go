package certcache

// A table is an immutable hash table in which a name has one place: the hash
// chooses a bucket, and hash and the bucket's move together choose the cell. The
// moves are chosen when the table is made, so that no two names share a cell. A
// search looks at one cell, and the processor has nothing to guess wrongly.
type table struct {
	cells []cell
	moves []uint8
	// places is how many of cells can be chosen. Behind them are those that no
	// move found a free place for, normally none.
	places int
	used   int
	more   []*more // nil, or one, which may be nil, for each of cells
}

// A cell has the entries of a name, and of the wildcard above it. Two are in a
// cache line. In an empty cell all is zero.
type cell struct {
	hash uint64
	name string
	// only is the one entry of the name itself, nil when there are none or
	// several.
	only *Entry
}

// find returns the index of a name's cell, -1 when there is none.
func (t *table) find(hash uint64, name string) int {
	i := t.place(hash, t.moves[bucket(hash, len(t.moves))])
	if c := &t.cells[i]; c.hash == hash && c.name == name {
		return i
	}
	if len(t.cells) == t.places {
		return -1
	}
	return t.findBehind(hash, name)
}

func (t *table) findBehind(hash uint64, name string) int {
	for i := t.places; i < len(t.cells); i++ {
		if t.cells[i].hash == hash && t.cells[i].name == name {
			return i
		}
	}
	return -1
}

// bucket uses the low bits of a hash; the high ones choose the shard.
func bucket(hash uint64, buckets int) int { return int(uint64(uint32(hash)) * uint64(buckets) >> 32) }

func (t *table) place(hash uint64, move uint8) int {
	mixed := (hash ^ uint64(move)*0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93
	return int(mixed >> 32 * uint64(t.places) >> 32)
}

// moreOf returns where the ranking of a cell is, nil when only is all it has.
func (t *table) moreOf(i int) *more {
	if t.more == nil {
		return nil
	}
	return t.more[i]
}
