package relay

import (
	"cmp"
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxDenied bounds how many sources and accounts are remembered.
const maxDenied = 4096

// Denied is what one source, as one account or as nobody, has tried and has no
// right to.
type Denied struct {
	Source netip.Prefix `json:"source"`
	User   string       `json:"user,omitempty"`
	Count  uint64       `json:"count"`
	First  time.Time    `json:"first"`
	Last   time.Time    `json:"last"`
	Port   uint16       `json:"port"`           // of the last attempt, as all that follows
	From   string       `json:"from"`           // empty: the null sender
	Rcpt   string       `json:"rcpt,omitempty"` // empty: it did not come so far
	Reply  string       `json:"reply"`
}

// DeniedList is all that is remembered, the latest attempt first.
type DeniedList struct {
	Denied    []Denied  `json:"denied"`
	Total     uint64    `json:"total"`     // attempts, those that are forgotten among them
	Forgotten uint64    `json:"forgotten"` // attempts of whom nothing is remembered
	Since     time.Time `json:"since"`
}

// denials remembers the unauthorised attempts. Where there are too many to
// remember, the one that was quiet for longest is forgotten.
type denials struct {
	room  int
	since time.Time

	mu               sync.Mutex
	byKey            map[deniedKey]*list.Element
	order            *list.List // of *Denied, the latest first
	total, forgotten uint64
}

type deniedKey struct {
	source netip.Prefix
	user   string
}

func newDenials(room int) *denials {
	return &denials{room: room, since: time.Now(), byKey: map[deniedKey]*list.Element{}, order: list.New()}
}

// add counts one attempt of a session, which e reports.
func (d *denials) add(s *session, e Event) {
	key, now := deniedKey{sourceKey(s.g.source), s.user}, time.Now()
	rcpt := ""
	if len(e.Rcpt) > 0 {
		rcpt = e.Rcpt[0]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total++
	el, known := d.byKey[key]
	if known {
		d.order.MoveToFront(el)
	} else {
		if len(d.byKey) >= d.room {
			oldest := d.order.Remove(d.order.Back()).(*Denied)
			d.forgotten += oldest.Count
			delete(d.byKey, deniedKey{oldest.Source, oldest.User})
		}
		el = d.order.PushFront(&Denied{Source: key.source, User: key.user, First: now})
		d.byKey[key] = el
	}
	v := el.Value.(*Denied)
	v.Count++
	v.Last, v.Port, v.From, v.Rcpt, v.Reply = now, s.g.port, e.From, rcpt, e.Reply
}

// Denied returns the unauthorised attempts since the relay began, the latest
// first; with byCount those who tried most first.
func (s *Server) Denied(byCount bool) DeniedList {
	d := s.denials
	d.mu.Lock()
	all := DeniedList{Denied: make([]Denied, 0, d.order.Len()), Total: d.total, Forgotten: d.forgotten, Since: d.since}
	for el := d.order.Front(); el != nil; el = el.Next() {
		all.Denied = append(all.Denied, *el.Value.(*Denied))
	}
	d.mu.Unlock()
	if byCount {
		slices.SortStableFunc(all.Denied, func(a, b Denied) int { return cmp.Compare(b.Count, a.Count) })
	}
	return all
}
