package certcache

import "sync/atomic"

// A table is a hash table in which a name has one place: the hash chooses a
// bucket, and hash and the bucket's move together choose the cell. The moves are
// chosen when the table is made, so that no two names share a cell. A search
// looks at one cell, and the processor has nothing to guess wrongly. Only the
// rankings change later.
type table struct {
	cells []cell
	moves []uint8
	// tags has a byte of the hash of each place's name: most searches for a name
	// that is not there end without a look at a cell.
	tags []uint8
	// places is how many of cells can be chosen. Behind them are those that no
	// move found a free place for, normally none.
	places int
	used   int
	// more is nil, or has for each of cells its ranking, nil when only is all that
	// the cell has.
	more []atomic.Pointer[ranking]
}

// A cell has the entries of a name, and of the wildcard above it. Two are in a
// cache line. In an empty cell all is zero.
type cell struct {
	name string
	// only is the one entry of the name itself, nil when there are none or
	// several, and front is that entry's.
	only  *Entry
	front *front
}

// cell returns the cell in which a name with a hash is, unless it is behind the
// places or nowhere.
func (t *table) index(hash uint64) int {
	return t.place(hash, t.moves[bucket(hash, len(t.moves))])
}

// find returns the index of a name's cell, -1 when there is none.
func (t *table) find(hash uint64, name string) int {
	i := t.index(hash)
	if t.tags[i] == tag(hash) && t.cells[i].name == name {
		return i
	}
	if len(t.cells) == t.places {
		return -1
	}
	return t.findBehind(name)
}

func (t *table) findBehind(name string) int {
	for i := t.places; i < len(t.cells); i++ {
		if t.cells[i].name == name {
			return i
		}
	}
	return -1
}

// tag uses bits that neither bucket nor the choice of the shard depend on much.
func tag(hash uint64) uint8 { return uint8(hash) }

// bucket uses the low bits of a hash; the high ones choose the shard.
func bucket(hash uint64, buckets int) int { return int(uint64(uint32(hash)) * uint64(buckets) >> 32) }

// place multiplies a hash with a number that depends on the move: each move takes
// each hash on by a distance of its own.
func (t *table) place(hash uint64, move uint8) int {
	moved := hash * (0x9e3779b97f4a7c15 + 2*uint64(move))
	return int(moved >> 32 * uint64(t.places) >> 32)
}

// rankingOf returns the ranking of a cell, nil when only is all that it has.
func (t *table) rankingOf(i int) *ranking {
	if t.more == nil {
		return nil
	}
	return t.more[i].Load()
}
