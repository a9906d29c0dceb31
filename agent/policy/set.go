package policy

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// item is one entry in a set, with its ID so that it is hashed once.
type item struct {
	id    uint64
	entry *Entry
}

// node holds the entries of one prefix, in the order of compareItems. Nodes
// are shared between clones and never written to.
type node []item

// compareItems orders the entries of one prefix as they take precedence:
// by origin, then deny before allow, then by the name of the feed or host: what
// comes of no name first.
func compareItems(a, b item) int {
	return cmp.Or(
		cmp.Compare(originRank(a.entry.Origin), originRank(b.entry.Origin)),
		cmp.Compare(b.entry.Action, a.entry.Action), // "deny" sorts after "allow"
		cmp.Compare(a.entry.Feed, b.entry.Feed),
		cmp.Compare(a.entry.Name, b.entry.Name),
	)
}

func originRank(o Origin) int {
	return slices.Index([]Origin{Operator, File, Feed, Learned}, o)
}

// Set holds entries by prefix, a million if need be. A set may be read by
// many goroutines while none changes it; to change one that is being read,
// change its Clone and hand that out instead.
type Set struct {
	table  *bart.Table[node]
	count  int
	shared atomic.Bool // table is shared with a clone: copy on write from now on
}

// NewSet returns a set of the entries; of two with one identity the later stays.
func NewSet(entries ...Entry) *Set {
	s := &Set{table: new(bart.Table[node])}
	for _, e := range entries {
		s.Put(e)
	}
	return s
}

// Clone returns a copy that changes on its own. It costs nothing; from then on
// a change to either copies what it touches.
func (s *Set) Clone() *Set {
	s.shared.Store(true)
	c := &Set{table: s.table, count: s.count}
	c.shared.Store(true)
	return c
}

// Len is the number of entries.
func (s *Set) Len() int { return s.count }

// Put adds an entry, or replaces the one of the same identity, and returns
// that. It asks nothing; see Add. The entry must be valid.
func (s *Set) Put(e Entry) (old Entry, replaced bool) {
	it := item{id: e.ID(), entry: &e}
	s.modify(e.Prefix, func(n node) node {
		i, found := slices.BinarySearchFunc(n, it, compareItems)
		if replaced = found; found {
			old = *n[i].entry
			n = slices.Clone(n)
			n[i] = it
			return n
		}
		grown := make(node, 0, len(n)+1)
		return append(append(append(grown, n[:i]...), it), n[i:]...)
	})
	if !replaced {
		s.count++
	}
	return old, replaced
}

// Add is Put for an entry that must not contradict another: an allow and a
// deny of the same origin on the same prefix and port, both live at now, is an
// error that says what to do. What a name resolves to today contradicts
// nothing: there deny comes first.
func (s *Set) Add(now time.Time, e Entry) (old Entry, replaced bool, err error) {
	if err := s.Conflict(now, e); err != nil {
		return Entry{}, false, err
	}
	old, replaced = s.Put(e)
	return old, replaced, nil
}

// Conflict is the error of Add for an entry, without adding it.
func (s *Set) Conflict(now time.Time, e Entry) error {
	n, _ := s.table.Get(e.Prefix)
	for _, it := range n {
		o := it.entry
		if o.Name != "" || e.Name != "" {
			continue
		}
		if o.Origin != e.Origin || o.Feed != e.Feed || o.Action == e.Action || o.Expired(now) || e.Expired(now) {
			continue
		}
		if on := overlap(o.Ports, e.Ports); on != "" {
			return fmt.Errorf("%s %s contradicts the %s of the same prefix on %s: remove that first (synward %s remove %s), or give the two different ports",
				e.Action, e.Prefix, o.Action, on, o.Action, o.Prefix)
		}
	}
	return nil
}

// overlap says in words which ports two entries share; "" means none.
func overlap(a, b []uint16) string {
	if len(a) == 0 {
		a, b = b, a
	}
	if len(a) == 0 {
		return "every port"
	}
	var both []uint16
	for _, p := range a {
		if len(b) == 0 || slices.Contains(b, p) {
			both = append(both, p)
		}
	}
	if len(both) == 0 {
		return ""
	}
	return "port " + joinPorts(both, ", ")
}

// Remove takes out the entry of an identity and returns it.
func (s *Set) Remove(k Key) (old Entry, removed bool) {
	if !k.Prefix.IsValid() {
		return Entry{}, false
	}
	s.modify(k.Prefix, func(n node) node {
		i := slices.IndexFunc(n, func(it item) bool { return it.entry.Key() == k })
		if i < 0 {
			return n
		}
		old, removed = *n[i].entry, true
		return append(slices.Clone(n[:i]), n[i+1:]...)
	})
	if removed {
		s.count--
	}
	return old, removed
}

// modify replaces the node of a prefix by what fn makes of it.
func (s *Set) modify(p netip.Prefix, fn func(node) node) {
	change := func(n node, _ bool) (node, bool) {
		n = fn(n)
		return n, len(n) == 0
	}
	if s.shared.Load() {
		s.table = s.table.ModifyPersist(p, change)
		return
	}
	s.table.Modify(p, change)
}

// Get returns the entry of an identity.
func (s *Set) Get(k Key) (Entry, bool) {
	n, _ := s.table.Get(k.Prefix)
	for _, it := range n {
		if it.entry.Key() == k {
			return *it.entry, true
		}
	}
	return Entry{}, false
}

// All walks every entry, sorted by prefix (IPv4 first, a prefix before what it
// contains), then in order of precedence.
func (s *Set) All() iter.Seq[Entry] { return entries(s.table.AllSorted()) }

// Covering walks the entries whose prefix contains an address, the longest
// prefix first. An IPv4-mapped address is IPv6.
func (s *Set) Covering(a netip.Addr) iter.Seq[Entry] {
	a = a.WithZone("")
	return entries(s.table.Supernets(netip.PrefixFrom(a, a.BitLen())))
}

// Within walks the entries whose prefix is p or lies in it, sorted.
func (s *Set) Within(p netip.Prefix) iter.Seq[Entry] { return entries(s.table.Subnets(p)) }

func entries(nodes iter.Seq2[netip.Prefix, node]) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, n := range nodes {
			for _, it := range n {
				if !yield(*it.entry) {
					return
				}
			}
		}
	}
}

// NextExpiry is the next time after now at which an entry ends; zero = none does.
func (s *Set) NextExpiry(now time.Time) time.Time {
	var next time.Time
	for _, n := range s.table.All() {
		for _, it := range n {
			t := it.entry.Expires
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// ByID finds entries by their IDs; those that are not in the set are left out.
func (s *Set) ByID(ids map[uint64]bool) map[uint64]Entry {
	out := make(map[uint64]Entry, len(ids))
	for _, n := range s.table.All() {
		for _, it := range n {
			if ids[it.id] {
				out[it.id] = *it.entry
			}
		}
	}
	return out
}
