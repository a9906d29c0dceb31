package policy

import (
	"iter"
	"net/netip"
	"sort"
	"time"
)

// All walks every entry, sorted by prefix (IPv4 first, a prefix before what it
// contains), then in order of precedence.
func (s *Set) All() iter.Seq[Entry] { return entries(s.items()) }

// Having walks the entries that have a trait, in the order of All.
func (s *Set) Having(t Trait) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, c := range s.chunks {
			if c.traits&t == 0 {
				continue
			}
			for i := range c.items {
				if traitsOf(c.items[i].terms)&t != 0 && !yield(c.items[i].entry()) {
					return
				}
			}
		}
	}
}

// Covering walks the entries whose prefix contains an address, the longest
// prefix first. An IPv4-mapped address is IPv6.
func (s *Set) Covering(a netip.Addr) iter.Seq[Entry] {
	a = a.WithZone("")
	return entries(s.around(placeOf(netip.PrefixFrom(a, a.BitLen()))))
}

// Within walks the entries whose prefix is p or lies in it, sorted.
func (s *Set) Within(p netip.Prefix) iter.Seq[Entry] { return entries(s.within(placeOf(p.Masked()))) }

func entries(items iter.Seq[*item]) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for it := range items {
			if !yield(it.entry()) {
				return
			}
		}
	}
}

// items walks all items, not to be written to.
func (s *Set) items() iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for _, c := range s.chunks {
			for i := range c.items {
				if !yield(&c.items[i]) {
					return
				}
			}
		}
	}
}

// first is where the first item stands whose place is not before p.
func (s *Set) first(p place) (c, i int) {
	c = max(0, sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c].items[0].at.compare(p) >= 0 })-1)
	if c < len(s.chunks) {
		items := s.chunks[c].items
		i = sort.Search(len(items), func(i int) bool { return items[i].at.compare(p) >= 0 })
	}
	return c, i
}

// from walks the items from the first whose place is not before p.
func (s *Set) from(p place) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		c, i := s.first(p)
		for ; c < len(s.chunks); c, i = c+1, 0 {
			for items := s.chunks[c].items; i < len(items); i++ {
				if !yield(&items[i]) {
					return
				}
			}
		}
	}
}

// within walks the items in a place.
func (s *Set) within(p place) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for it := range s.from(p) {
			if !p.contains(it.at) || !yield(it) {
				return
			}
		}
	}
}

// at walks the items of just this place.
func (s *Set) at(p place) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for it := range s.from(p) {
			if it.at != p || !yield(it) {
				return
			}
		}
	}
}

// last is the place of the last item that is not behind p.
func (s *Set) last(p place) (place, bool) {
	c := sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c].items[0].at.compare(p) > 0 }) - 1
	if c < 0 {
		return place{}, false
	}
	items := s.chunks[c].items
	i := sort.Search(len(items), func(i int) bool { return items[i].at.compare(p) > 0 })
	return items[i-1].at, true
}

// around walks the items of p and of the prefixes around it, longest first. No
// prefix around p is longer than what p shares with the last one before it.
func (s *Set) around(p place) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for {
			before, ok := s.last(p)
			if !ok || before.six != p.six {
				return
			}
			if !before.contains(p) {
				p = p.shorten(before.common(p))
				continue
			}
			for it := range s.at(before) {
				if !yield(it) {
					return
				}
			}
			if before.bits == 0 {
				return
			}
			p = before.shorten(int(before.bits) - 1)
		}
	}
}

// NextExpiry is the next time after now at which an entry ends; zero = none does.
func (s *Set) NextExpiry(now time.Time) time.Time {
	var next time.Time
	for e := range s.Having(Expires) {
		if t := e.Expires; t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// ByID finds entries by their IDs; those that are not in the set are left out.
func (s *Set) ByID(ids map[uint64]bool) map[uint64]Entry {
	out := make(map[uint64]Entry, len(ids))
	for it := range s.items() {
		if ids[it.id] {
			out[it.id] = it.entry()
		}
	}
	return out
}

// node is the items of one place.
type node = []item

// nodes walks places from p on, with their items; not to be written to.
func (s *Set) nodes(p place) iter.Seq2[place, node] {
	return func(yield func(place, node) bool) {
		c, i := s.first(p)
		for c < len(s.chunks) {
			items := s.chunks[c].items
			if i == len(items) {
				c, i = c+1, 0
				continue
			}
			at, j := items[i].at, i+1
			for j < len(items) && items[j].at == at {
				j++
			}
			n := items[i:j:j]
			for i = j; i == len(s.chunks[c].items) && c+1 < len(s.chunks) && s.chunks[c+1].items[0].at == at; {
				c, i = c+1, 0
				for items = s.chunks[c].items; i < len(items) && items[i].at == at; i++ {
					n = append(n, items[i])
				}
			}
			if !yield(at, n) {
				return
			}
		}
	}
}

// node is the items of one place.
func (s *Set) node(p place) node {
	var n node
	for it := range s.at(p) {
		n = append(n, *it)
	}
	return n
}

// nodesIn walks the places in a prefix, with their items.
func (s *Set) nodesIn(p netip.Prefix) iter.Seq2[place, node] {
	root := placeOf(p)
	return func(yield func(place, node) bool) {
		for at, n := range s.nodes(root) {
			if !root.contains(at) || !yield(at, n) {
				return
			}
		}
	}
}
