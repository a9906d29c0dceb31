package policy

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// item is one entry in a set. What many entries have in common is kept once,
// in terms: an entry without prefix and note, never written to.
type item struct {
	at    place
	id    uint64 // of the entry, so that it is hashed once
	terms *Entry
	note  string
}

func (it *item) entry() Entry {
	e := *it.terms
	e.Prefix, e.Note = it.at.prefix(), it.note
	return e
}

func (it *item) expired(now time.Time) bool { return it.terms.Expired(now) }

// compareItems orders entries by prefix, and those of one as they take
// precedence: by origin, then deny before allow, then by the name of the feed or
// host: what comes of no name first.
func compareItems(a, b *item) int {
	if c := a.at.compare(b.at); c != 0 {
		return c
	}
	if a.terms == b.terms {
		return 0
	}
	return cmp.Or(
		cmp.Compare(originRank(a.terms.Origin), originRank(b.terms.Origin)),
		cmp.Compare(b.terms.Action, a.terms.Action), // "deny" sorts after "allow"
		cmp.Compare(a.terms.Feed, b.terms.Feed),
		cmp.Compare(a.terms.Name, b.terms.Name),
	)
}

func originRank(o Origin) int {
	switch o {
	case Operator:
		return 0
	case File:
		return 1
	case Feed:
		return 2
	case Learned:
		return 3
	}
	return -1
}

// Trait is something that few entries have, so that these are found without a
// walk over all.
type Trait uint8

// The traits.
const (
	Expires Trait = 1 << iota // ends by itself
	Relays                    // has the relay right
	Derived                   // comes of a name or a feed
	Denies
)

func traitsOf(terms *Entry) (t Trait) {
	if !terms.Expires.IsZero() {
		t |= Expires
	}
	if terms.Relay {
		t |= Relays
	}
	if terms.Origin == Feed || terms.Name != "" {
		t |= Derived
	}
	if terms.Action == Deny {
		t |= Denies
	}
	return t
}

// full is how many items a chunk holds at most.
const full = 256

// token is what tells which set may write to a chunk.
type token struct{ _ byte }

// chunk is a run of items, sorted and never empty. The set whose token it has
// may write to it; for every other it never changes.
type chunk struct {
	owner  *token
	traits Trait // that some of the items may have
	items  []item
}

func newChunk(owner *token, items []item) *chunk {
	c := &chunk{owner: owner, items: items}
	for i := range items {
		c.traits |= traitsOf(items[i].terms)
	}
	return c
}

// common keeps terms that many entries share.
type common struct {
	mu   sync.Mutex
	last *Entry
	all  map[termsKey]*Entry
}

// termsKey is an entry's terms in a form that can be compared.
type termsKey struct {
	action               Action
	origin               Origin
	feed, name, by       string
	ports                string
	conns, burst         uint64
	rate                 Rate
	capped               bool
	shared, relay, immun bool
	expires, at          time.Time
}

// mostTerms bounds what common remembers. Nothing is lost when it forgets.
const mostTerms = 4096

// of returns the terms of an entry, the same ones for all that share them.
func (c *common) of(e Entry) *Entry {
	e.Prefix, e.Note = Entry{}.Prefix, ""
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && sameTerms(c.last, &e) {
		return c.last
	}
	k := keyOf(e)
	t := c.all[k]
	if t == nil {
		if len(c.all) >= mostTerms || c.all == nil {
			c.all = map[termsKey]*Entry{}
		}
		t = &e
		c.all[k] = t
	}
	c.last = t
	return t
}

func keyOf(e Entry) termsKey {
	k := termsKey{
		action: e.Action, origin: e.Origin, feed: e.Feed, name: e.Name, by: e.By,
		shared: e.Shared, relay: e.Relay, immun: e.Immune, expires: e.Expires, at: e.At,
	}
	for _, p := range e.Ports {
		k.ports += string([]byte{byte(p >> 8), byte(p)})
	}
	if e.MaxConns != nil {
		k.conns = uint64(*e.MaxConns) + 1
	}
	if e.Burst != nil {
		k.burst = uint64(*e.Burst) + 1
	}
	if e.Rate != nil {
		k.rate, k.capped = *e.Rate, true
	}
	return k
}

// sameTerms compares everything but prefix and note.
func sameTerms(a, b *Entry) bool {
	return a.Action == b.Action && a.Origin == b.Origin && a.Feed == b.Feed && a.Name == b.Name && a.By == b.By &&
		a.At == b.At && sameMeaning(a, b)
}

// sameMeaning compares what the terms do, whoever made them and when.
func sameMeaning(a, b *Entry) bool {
	return slices.Equal(a.Ports, b.Ports) && equalPtr(a.MaxConns, b.MaxConns) && equalPtr(a.Rate, b.Rate) && equalPtr(a.Burst, b.Burst) &&
		a.Shared == b.Shared && a.Relay == b.Relay && a.Immune == b.Immune && a.Expires.Equal(b.Expires)
}
