package certcache

import (
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
)

// rebuildLocked publishes tables with entries put in, or taken out.
func (c *Cache) rebuildLocked(entries []*Entry, out bool) {
	n := 0
	for _, e := range entries {
		n += len(e.Names)
	}
	hashes := make([]uint64, 0, n)
	var ends [1<<shardBits + 1]int // of the changes of each shard, after the first, which is 0
	for _, e := range entries {
		for _, name := range e.Names {
			key, _ := cutWildcard(name)
			hash := maphash.String(c.seed, key)
			hashes = append(hashes, hash)
			ends[hash>>(64-shardBits)+1]++
		}
	}
	for i := range c.shards {
		ends[i+1] += ends[i]
	}
	changes, next := make([]change, n), ends
	for _, e := range entries {
		f := e.front.Load()
		for _, name := range e.Names {
			key, wild := cutWildcard(name)
			at := &next[hashes[0]>>(64-shardBits)]
			changes[*at] = change{hash: hashes[0], name: key, entry: e, front: f, wild: wild, out: out}
			*at++
			hashes = hashes[1:]
		}
	}
	c.buildLocked(changes, ends[:])
}

// manyChanges is from where on more than one processor is put to work.
const manyChanges = 10_000

// buildLocked makes the tables of all shards that have changes, which are those
// from one of ends to the next.
func (c *Cache) buildLocked(changes []change, ends []int) {
	workers := 1
	if len(changes) >= manyChanges {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int32
	work := func() {
		b := builder{seed: c.seed}
		for i := int(next.Add(1)) - 1; i < len(c.shards); i = int(next.Add(1)) - 1 {
			if part := changes[ends[i]:ends[i+1]]; len(part) > 0 {
				s := &c.shards[i]
				s.table.Store(b.build(s.table.Load(), part))
				s.version.Add(1)
			}
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}
