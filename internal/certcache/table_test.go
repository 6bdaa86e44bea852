package certcache

import (
	"fmt"
	"hash/maphash"
	"testing"
)

func put(hash uint64, name string) change {
	e := &Entry{Names: []string{name}}
	e.front.Store(new(front))
	key, wild := cutWildcard(name)
	return change{hash: hash, name: key, entry: e, front: e.front.Load(), wild: wild}
}

func TestTablesOfAllSizes(t *testing.T) {
	b := builder{seed: maphash.MakeSeed()}
	for n := 0; n < 600; n += 1 + n/20 {
		var changes []change
		for i := range n {
			name := fmt.Sprintf("host-%d.example", i)
			changes = append(changes, put(maphash.String(b.seed, name), name))
		}
		// In two steps, of which the second copies what the first has made.
		half := b.build(new(builder).table(), changes[:n/2])
		for what, tb := range map[string]*table{"half": half, "all": b.build(half, changes[n/2:])} {
			for i := range n {
				name := fmt.Sprintf("host-%d.example", i)
				found := tb.find(maphash.String(b.seed, name), name)
				if in := what == "all" || i < n/2; (found >= 0) != in {
					t.Fatalf("%s of %d: %s has the index %d", what, n, name, found)
				}
			}
			if i := tb.find(maphash.String(b.seed, "a.example"), "a.example"); i >= 0 {
				t.Fatalf("%s of %d: a name that is not there has the index %d", what, n, i)
			}
		}
	}
}

// TestEqualHashes has names that no move can tell apart.
func TestEqualHashes(t *testing.T) {
	const hash, n = 42, 20
	b := builder{seed: maphash.MakeSeed()}
	var changes []change
	for i := range n {
		changes = append(changes, put(hash, fmt.Sprintf("host-%d.example", i)), put(hash, fmt.Sprintf("*.host-%d.example", i)))
	}
	changes = append(changes, put(hash, "alone.example"))
	tb := b.build(new(builder).table(), changes)
	for i := range n {
		at := tb.find(hash, fmt.Sprintf("host-%d.example", i))
		if at < 0 || tb.cells[at].only == nil || len(tb.rankingOf(at).ofWildcard()) != 1 {
			t.Errorf("name %d has the index %d, or not its entries", i, at)
		}
	}
	if at := tb.find(hash, "alone.example"); at < 0 || tb.rankingOf(at) != nil {
		t.Errorf("the name without a wildcard has the index %d, or a ranking", at)
	}
	if at := tb.find(hash, "other.example"); at >= 0 {
		t.Errorf("a name that is not there has the index %d", at)
	}
	tb = b.build(tb, []change{put(maphash.String(b.seed, "b.example"), "b.example")})
	for i := range n { // by hashes that differ
		name := fmt.Sprintf("host-%d.example", i)
		if at := tb.find(maphash.String(b.seed, name), name); at < 0 || len(tb.rankingOf(at).ofWildcard()) != 1 {
			t.Errorf("in the copy, name %d has the index %d, or not its entries", i, at)
		}
	}
}

func TestTwins(t *testing.T) {
	for _, tt := range []struct {
		hashes []uint64
		want   bool
	}{
		{[]uint64{1}, false},
		{[]uint64{2, 4, 6, 8}, false},
		{[]uint64{2, 4, 6, 2}, true},
		{[]uint64{0, 4, 0}, true},
		{[]uint64{7 << 40, 7<<40 + 1<<20, 7 << 50}, false},
	} {
		var changes []change
		for _, h := range tt.hashes {
			changes = append(changes, change{hash: h})
		}
		if got := twins(changes); got != tt.want {
			t.Errorf("twins of %v = %v", tt.hashes, got)
		}
	}
}
