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
func Diff(from, to *Set) Changes {
	c := Changes{Added: []Entry{}, Changed: []Changed{}, Removed: []Entry{}} // [] in JSON, not null
	for e := range to.All() {
		was, ok := from.Get(e.Key())
		switch {
		case !ok:
			c.Added = append(c.Added, e)
		case !was.Same(e):
			c.Changed = append(c.Changed, Changed{Old: was, New: e})
		}
	}
	for e := range from.All() {
		if _, ok := to.Get(e.Key()); !ok {
			c.Removed = append(c.Removed, e)
		}
	}
	return c
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
