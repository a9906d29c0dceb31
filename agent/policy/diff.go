package policy

import "net/netip"

// Changed is one entry before and after.
type Changed struct {
	Old Entry `json:"old"`
	New Entry `json:"new"`
}

// Changes are what turns one set into another, each part sorted.
type Changes struct {
	Added   []Entry   `json:"added"`
	Changed []Changed `json:"changed"`
	Removed []Entry   `json:"removed"`
}

// Diff compares what two sets mean; who made an entry and when counts nothing.
// What clones still share is not looked at.
func Diff(from, to *Set) Changes {
	added, changed, removed := 0, 0, 0
	diff(from, to, func(was, now *item) {
		switch {
		case was == nil:
			added++
		case now == nil:
			removed++
		default:
			changed++
		}
	})
	// A million entries are not to be moved about while the lists grow.
	c := Changes{Added: make([]Entry, 0, added), Changed: make([]Changed, 0, changed), Removed: make([]Entry, 0, removed)}
	diff(from, to, func(was, now *item) {
		switch {
		case was == nil:
			c.Added = append(c.Added, now.entry())
		case now == nil:
			c.Removed = append(c.Removed, was.entry())
		default:
			c.Changed = append(c.Changed, Changed{Old: was.entry(), New: now.entry()})
		}
	})
	return c
}

// diff calls fn for what differs: was is nil for what is new, now for what is
// gone.
func diff(from, to *Set, fn func(was, now *item)) {
	a, b := cursor{set: from}, cursor{set: to}
	for {
		if a.start() && b.start() && a.set.chunks[a.c] == b.set.chunks[b.c] {
			a.c, b.c = a.c+1, b.c+1
			continue
		}
		was, now := a.item(), b.item()
		order := 0
		switch {
		case was == nil && now == nil:
			return
		case was == nil:
			order = 1
		case now == nil:
			order = -1
		default:
			order = compareItems(was, now)
		}
		switch {
		case order < 0:
			fn(was, nil)
		case order > 0:
			fn(nil, now)
		case !was.same(now):
			fn(was, now)
		}
		if order <= 0 {
			a.next()
		}
		if order >= 0 {
			b.next()
		}
	}
}

// cursor stands on an item of a set, or behind the last.
type cursor struct {
	set  *Set
	c, i int
}

// start says whether the cursor stands at the start of a chunk.
func (c *cursor) start() bool { return c.i == 0 && c.c < len(c.set.chunks) }

func (c *cursor) item() *item {
	if c.c == len(c.set.chunks) {
		return nil
	}
	return &c.set.chunks[c.c].items[c.i]
}

func (c *cursor) next() {
	if c.i++; c.i == len(c.set.chunks[c.c].items) {
		c.c, c.i = c.c+1, 0
	}
}

// same says whether two items of one identity mean the same.
func (it *item) same(o *item) bool {
	return it.note == o.note && (it.terms == o.terms || sameMeaning(it.terms, o.terms))
}

// Empty says whether nothing changes.
func (c Changes) Empty() bool { return len(c.Added)+len(c.Changed)+len(c.Removed) == 0 }

// Prefixes are the prefixes that change, for Recompile.
func (c Changes) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(c.Added)+len(c.Changed)+len(c.Removed))
	for _, e := range c.Added {
		out = append(out, e.Prefix)
	}
	for _, e := range c.Changed {
		out = append(out, e.New.Prefix)
	}
	for _, e := range c.Removed {
		out = append(out, e.Prefix)
	}
	return out
}
