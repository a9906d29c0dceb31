package derive

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/feeds"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// mark is what a feed's list was when it was taken last.
type mark = feeds.Mark

// feed is a feed's document.
type feed struct {
	Name  string        `json:"name"`
	URL   string        `json:"url"`
	Every time.Duration `json:"every"` // ns
	Entry policy.Entry  `json:"entry"` // what each entry is, without its prefix
	Good  time.Time     `json:"good"`  // of the last list that changed something
}

// Why a feed is not asked for.
var (
	errOrphan = errors.New("its place is not known any more: its entries stay as they are; add it again with synward feed add, or remove them with synward feed remove")
	errUndone = errors.New("its entries have been taken out by an undo: bring them back with synward feed refresh, or remove it with synward feed remove")
)

// subject is a name or a feed: what entries are derived from.
type subject struct {
	kind  string
	name  string
	url   string
	every time.Duration
	entry policy.Entry   // what each entry is, without its prefix, who and when
	was   policy.Action  // of those in force
	have  []netip.Prefix // in force, sorted
}

// id is "allow office.example.org", "deny spf:x.example", "feed spam".
func (s *subject) id() string {
	if s.kind == control.KindFeed {
		return "feed " + s.name
	}
	return string(s.entry.Action) + " " + s.name
}

// stopped says why a subject is not asked for by itself; nil = it is. A feed
// that is in force has entries: an empty list is never taken.
func (s *subject) stopped() error {
	switch {
	case s.kind != control.KindFeed:
		return nil
	case s.url == "":
		return errOrphan
	case len(s.have) == 0:
		return errUndone
	}
	return nil
}

// key is the identity of an entry that is in force.
func (s *subject) key(p netip.Prefix) policy.Key {
	k := s.with(p).Key()
	k.Action = s.was
	return k
}

// born is the subject's identity for history.
func (s *subject) born() policy.Key {
	if s.kind == control.KindFeed {
		return policy.Key{Feed: s.name}
	}
	return policy.Key{Name: s.name, Action: s.entry.Action}
}

// with is the entry of a prefix.
func (s *subject) with(p netip.Prefix) policy.Entry {
	e := s.entry
	e.Prefix = p
	return e
}

func (s *subject) derived() control.Derived {
	d := control.Derived{
		Kind: s.kind, Name: s.name, URL: s.url, Action: s.entry.Action, Ports: s.entry.Ports, Note: s.entry.Note,
		Expires: s.entry.Expires, Prefixes: len(s.have),
	}
	if s.every > 0 {
		d.Every = s.every.String()
	}
	return d
}

func compareDerived(a, b control.Derived) int {
	isFeed := func(d control.Derived) int {
		if d.Kind == control.KindFeed {
			return 1
		}
		return 0
	}
	return cmp.Or(isFeed(a)-isFeed(b), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Action, b.Action))
}

// samplePrefix is one that any entry may have.
func samplePrefix() netip.Prefix { return netip.MustParsePrefix("192.0.2.1/32") }

// template is an entry without what is not the operator's wish.
func template(e policy.Entry) policy.Entry {
	e.Prefix, e.By, e.At = netip.Prefix{}, "", time.Time{}
	return e
}

// named is the subject of a name.
func named(name string, e policy.Entry) *subject {
	e = template(e)
	e.Origin, e.Name, e.Feed = policy.Operator, name, ""
	kind := control.KindHost
	if strings.HasPrefix(name, policy.SPFPrefix) {
		kind = control.KindSPF
	}
	return &subject{kind: kind, name: name, entry: e, was: e.Action}
}

// doc is the feed as the store has it.
func (f feed) doc() (store.Doc, error) {
	data, err := json.Marshal(f)
	if err != nil {
		return store.Doc{}, fmt.Errorf("write feed: %w", err)
	}
	return store.Doc{Collection: agent.FeedDocs, Name: f.Name, Data: data}, nil
}

// subject is the subject of a feed.
func (f feed) subject() *subject {
	return &subject{kind: control.KindFeed, name: f.Name, url: f.URL, every: f.Every, entry: f.Entry, was: f.Entry.Action}
}

// index finds the subjects in a policy, by their IDs.
func index(set *policy.Set, known map[string]feed) map[string]*subject {
	out := map[string]*subject{}
	for _, f := range known {
		s := f.subject()
		out[s.id()] = s
	}
	latest := map[string]time.Time{}
	for e := range set.Having(policy.Derived) {
		var s *subject
		switch {
		case e.Name != "":
			s = named(e.Name, e)
		case e.Origin == policy.Feed:
			s = &subject{kind: control.KindFeed, name: e.Feed, entry: template(e)}
		default:
			continue
		}
		id := s.id()
		if out[id] == nil {
			out[id] = s
		}
		if s.kind != control.KindFeed && e.At.After(latest[id]) {
			latest[id], out[id].entry = e.At, s.entry // what the operator said last
		}
		out[id].was = e.Action
		out[id].have = append(out[id].have, e.Prefix)
	}
	return out
}
