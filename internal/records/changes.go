package records

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxChanges is how many IDs an instance's record has. Who has missed more of
// them reads all bundles anew.
const maxChanges = 256

// TellAfter is how long after a change an instance tells of it, unless it ends.
const TellAfter = 2 * time.Second

// longestLine is more than a first line has.
const longestLine = 256

// changeList is an instance's record: the last of its changes, of which there
// were Seq in all.
type changeList struct {
	Seq uint64    `json:"seq"`
	IDs []string  `json:"ids"`
	At  time.Time `json:"at"`
}

// unknown stands for the sequence of an instance whose record could not be read.
const unknown = ^uint64(0)

// place is how far an instance's record was read.
type place struct {
	seq  uint64
	line string // the first, which has the sum of the rest; empty when it could not be read
}

// Changes tells the other instances on the same storage which bundles this one
// has changed, and asks them the same. NewChanges makes it. Note is safe for
// concurrent use; Flush is called by one goroutine at a time, and so is Poll.
type Changes struct {
	r     *Records
	key   string
	began time.Time

	mu    sync.Mutex // guards noted
	noted []string   // each once

	own *changeList // as it is stored; nil before the first Flush; for Flush alone

	seen   map[string]place // by key; for Poll alone
	polled bool             // a Poll has noted where the others are; for Poll alone
}

// NewChanges returns the changes of an instance. Its name is unique among those
// that run on the storage.
func (r *Records) NewChanges(instance string) *Changes {
	return &Changes{r: r, key: keyOf(ChangeLists, component(instance)), began: time.Now(), seen: make(map[string]place)}
}

// Note says that the bundle of that ID was stored.
func (c *Changes) Note(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted = withID(c.noted, id)
}

// withID adds an ID once. One more than a record has room for says the same as
// any number: whoever has not seen them reads all anew.
func withID(ids []string, id string) []string {
	if len(ids) > maxChanges || slices.Contains(ids, id) {
		return ids
	}
	return append(ids, id)
}

// Flush stores what was noted, if anything was. After an error it is kept for
// the next Flush. It is called TellAfter after a Note, so that many changes make one
// record, and once more at the end.
func (c *Changes) Flush(ctx context.Context) error {
	c.mu.Lock()
	noted := c.noted
	c.noted = nil // what is noted from here on is of a later change
	c.mu.Unlock()
	if len(noted) == 0 {
		return nil
	}
	err := c.write(ctx, noted)
	if err != nil {
		c.mu.Lock()
		for _, id := range c.noted {
			noted = withID(noted, id)
		}
		c.noted = noted
		c.mu.Unlock()
	}
	return err
}

// write appends IDs to what is stored.
func (c *Changes) write(ctx context.Context, noted []string) error {
	if err := c.readOwn(ctx); err != nil {
		return err
	}
	ids := slices.Concat(c.own.IDs, noted)
	next := changeList{
		Seq: c.own.Seq + uint64(len(noted)),
		IDs: slices.Clone(ids[max(0, len(ids)-maxChanges):]),
		At:  time.Now().UTC(),
	}
	if err := c.r.storeJSON(ctx, c.key, kindChanges, next); err != nil {
		return err
	}
	c.own = &next
	return nil
}

// readOwn goes on where an instance of the same name has ended.
func (c *Changes) readOwn(ctx context.Context) error {
	if c.own != nil {
		return nil
	}
	var own changeList
	var damaged *DamagedError
	err := c.r.loadJSON(ctx, c.key, kindChanges, &own)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &damaged):
		own = changeList{}
	case err != nil:
		return err
	}
	c.own = &own
	return nil
}

// Poll returns the IDs of the bundles that other instances have changed since
// the last Poll. If all is true, any bundle may have been changed. The first
// Poll only notes where they are, but for lists that may have been stored since
// NewChanges: those that say so, and all when it comes late. It costs one List and one Load for each other
// instance. What could not be read is the error, beside what could, and is made
// up for by the next Poll.
func (c *Changes) Poll(ctx context.Context) (ids []string, all bool, err error) {
	entries, err := c.r.List(ctx, ChangeLists)
	if err != nil {
		return nil, false, err
	}
	p := poll{first: !c.polled, began: c.began, seen: make(map[string]place, len(entries))}
	for _, e := range entries {
		if e.Key == c.key {
			continue
		}
		was, known := c.seen[e.Key]
		value, err := c.r.load(ctx, e.Key)
		line, _, _ := strings.Cut(string(value[:min(len(value), longestLine)]), "\n")
		if err == nil && line != "" && line == was.line { // most have nothing new to tell
			p.seen[e.Key] = was
			continue
		}
		var l changeList
		if err == nil {
			err = c.r.readJSON(e.Key, kindChanges, value, &l)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case isOutage(err):
			p.missed(e.Key, was, known)
			p.errs = append(p.errs, err)
		case err != nil:
			p.damaged(e.Key, known && was.seq == unknown, err)
		default:
			p.read(was.seq, l)
			p.seen[e.Key] = place{l.Seq, line}
		}
	}
	c.seen, c.polled = p.seen, true
	slices.Sort(p.ids)
	return slices.Compact(p.ids), p.all, errors.Join(p.errs...)
}

// poll is what one Poll finds.
type poll struct {
	first bool
	began time.Time // the caller
	seen  map[string]place
	ids   []string
	all   bool
	errs  []error
}

// missed leaves it to the next Poll to make up for a record. Of one that was not
// there at the first Poll all is new.
func (p *poll) missed(key string, was place, known bool) {
	switch {
	case known:
		p.seen[key] = was
	case p.first:
		p.seen[key] = place{seq: unknown}
	}
}

// damaged tells of a record once. Its owner will write it anew.
func (p *poll) damaged(key string, told bool, err error) {
	p.seen[key] = place{seq: unknown}
	if !told {
		p.all = p.all || !p.first
		p.errs = append(p.errs, err)
	}
}

func (p *poll) read(was uint64, l changeList) {
	n := uint64(len(l.IDs))
	switch missed := l.Seq - was; {
	case p.first && time.Since(p.began) < TellAfter && !l.At.After(p.began):
	case p.first:
		p.ids = append(p.ids, l.IDs...)
	case was == unknown, missed > n: // also of a list that was begun anew
		p.all = true
	default: // of a new instance, was is 0
		p.ids = append(p.ids, l.IDs[n-missed:]...)
	}
}
