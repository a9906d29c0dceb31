package policy

import (
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sort"
	"sync/atomic"
	"time"
)

// Set holds entries by prefix, a million if need be: sorted, in chunks that its
// clones share, so that one change copies a chunk and no more. A set may be
// read by many goroutines while none changes it; to change one that is being
// read, change its Clone and hand that out instead.
type Set struct {
	chunks []*chunk // none empty
	count  int
	tally  [8]int // entries with the trait 1<<i
	common *common
	owner  *token      // of the chunks that may be written to
	shared atomic.Bool // with a clone: copy on write from now on
}

// NewSet returns a set of the entries; of two with one identity the later stays.
func NewSet(entries ...Entry) *Set { return Collect(slices.Values(entries)) }

// Collect is NewSet of a sequence.
func Collect(entries iter.Seq[Entry]) *Set {
	s := &Set{common: &common{}, owner: new(token)}
	var items []item
	for e := range entries {
		items = append(items, s.item(e))
	}
	order := func(a, b item) int { return compareItems(&a, &b) }
	if !slices.IsSortedFunc(items, order) {
		slices.SortStableFunc(items, order)
	}
	run := make([]item, 0, min(full, len(items)))
	for i := range items {
		if i+1 < len(items) && compareItems(&items[i], &items[i+1]) == 0 {
			continue
		}
		if len(run) == full {
			s.chunks, run = append(s.chunks, newChunk(s.owner, run)), make([]item, 0, full)
		}
		run = append(run, items[i])
		s.tell(&items[i], 1)
	}
	if len(run) > 0 {
		s.chunks = append(s.chunks, newChunk(s.owner, run))
	}
	return s
}

func (s *Set) item(e Entry) item {
	return item{at: placeOf(e.Prefix), id: e.ID(), terms: s.common.of(e), note: e.Note}
}

// tell counts an item in or out.
func (s *Set) tell(it *item, n int) {
	s.count += n
	for t := traitsOf(it.terms); t != 0; t &= t - 1 {
		s.tally[bits.TrailingZeros8(uint8(t))] += n
	}
}

// Clone returns a copy that changes on its own. It costs next to nothing; from
// then on a change to either copies what it touches.
func (s *Set) Clone() *Set {
	s.shared.Store(true)
	c := &Set{chunks: s.chunks, count: s.count, tally: s.tally, common: s.common}
	c.shared.Store(true)
	return c
}

// Len is the number of entries.
func (s *Set) Len() int { return s.count }

// Count is the number of entries with a trait.
func (s *Set) Count(t Trait) int { return s.tally[bits.TrailingZeros8(uint8(t))] }

// find is where an item is or would be: the chunk, the index in it, and
// whether it is there.
func (s *Set) find(it *item) (c, i int, found bool) {
	c = sort.Search(len(s.chunks), func(c int) bool { return compareItems(&s.chunks[c].items[0], it) > 0 }) - 1
	if c < 0 {
		return 0, 0, false
	}
	items := s.chunks[c].items
	i = sort.Search(len(items), func(i int) bool { return compareItems(&items[i], it) >= 0 })
	return c, i, i < len(items) && compareItems(&items[i], it) == 0
}

// writable makes a chunk one that this set may write to.
func (s *Set) writable(c int) *chunk {
	s.own()
	ch := s.chunks[c]
	if ch.owner != s.owner {
		ch = newChunk(s.owner, slices.Clone(ch.items))
		s.chunks[c] = ch
	}
	return ch
}

// own takes the list of chunks for this set alone, where a clone has it too.
func (s *Set) own() {
	if s.shared.Load() {
		s.chunks, s.owner = slices.Clone(s.chunks), new(token)
		s.shared.Store(false)
	}
}

// Put adds an entry, or replaces the one of the same identity, and returns
// that. It asks nothing; see Add. The entry must be valid.
func (s *Set) Put(e Entry) (old Entry, replaced bool) {
	it := s.item(e)
	c, i, found := s.find(&it)
	s.own()
	if len(s.chunks) == 0 {
		s.chunks = append(s.chunks, newChunk(s.owner, []item{it}))
		s.tell(&it, 1)
		return Entry{}, false
	}
	ch := s.writable(c)
	ch.traits |= traitsOf(it.terms)
	s.tell(&it, 1)
	if found {
		old = ch.items[i].entry()
		s.tell(&ch.items[i], -1)
		ch.items[i] = it
		return old, true
	}
	if len(ch.items) < full {
		ch.items = slices.Insert(ch.items, i, it)
		return Entry{}, false
	}
	s.split(c, i, it)
	return Entry{}, false
}

// split makes two chunks of a full one and the item that is to stand at i. What
// comes sorted leaves full chunks behind.
func (s *Set) split(c, i int, it item) {
	ch := s.chunks[c]
	at := full / 2
	if i == full {
		at = full
	}
	upper := append(make([]item, 0, full), ch.items[at:]...)
	clear(ch.items[at:])
	ch.items = ch.items[:at]
	if i < at {
		ch.items = slices.Insert(ch.items, i, it)
	} else {
		upper = slices.Insert(upper, i-at, it)
	}
	s.chunks = slices.Insert(s.chunks, c+1, newChunk(s.owner, upper))
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
	for it := range s.at(placeOf(e.Prefix)) {
		o := it.terms
		if o.Name != "" || e.Name != "" {
			continue
		}
		if o.Origin != e.Origin || o.Feed != e.Feed || o.Action == e.Action || o.Expired(now) || e.Expired(now) {
			continue
		}
		if on := overlap(o.Ports, e.Ports); on != "" {
			return fmt.Errorf("%s %s contradicts the %s of the same prefix on %s: remove that first (synward %s remove %s), or give the two different ports",
				e.Action, e.Prefix, o.Action, on, o.Action, e.Prefix)
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
	c, i, found := s.findKey(k)
	if !found {
		return Entry{}, false
	}
	ch := s.writable(c)
	old = ch.items[i].entry()
	s.tell(&ch.items[i], -1)
	if ch.items = slices.Delete(ch.items, i, i+1); len(ch.items) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
	return old, true
}

func (s *Set) findKey(k Key) (c, i int, found bool) {
	if !k.Prefix.IsValid() {
		return 0, 0, false
	}
	terms := Entry{Action: k.Action, Origin: k.Origin, Feed: k.Feed, Name: k.Name}
	return s.find(&item{at: placeOf(k.Prefix), terms: &terms})
}

// Get returns the entry of an identity.
func (s *Set) Get(k Key) (Entry, bool) {
	c, i, found := s.findKey(k)
	if !found {
		return Entry{}, false
	}
	return s.chunks[c].items[i].entry(), true
}
