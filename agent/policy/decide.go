package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Candidate is an entry whose prefix contains the address that was asked for.
type Candidate struct {
	Entry   Entry  `json:"entry"`
	Decides bool   `json:"decides"`
	Why     string `json:"why"` // why it decides, or why it does not
}

// Decision is a verdict and how it came about.
type Decision struct {
	Verdict rule.Verdict `json:"verdict"`
	Entry   *Entry       `json:"entry,omitempty"` // nil = the port's default decided
	Chain   []Candidate  `json:"chain"`           // in order of precedence
}

// Decide is the precedence as plain code, the model that Compile and the
// kernel are tested against:
//
//  1. The longest prefix wins among the operator's own entries (origins
//     operator and file, and what he allowed of the learned) that name the
//     port; on the same prefix in this order.
//  2. A feed's entry counts only where none of these covers the source on
//     the port; among feeds the longest prefix wins.
//  3. A learned deny comes before an allow, unless that is marked immune.
//  4. Otherwise the port's default.
//  5. An expired entry is as if it were not there.
//
// Where an allow and a deny of the same origin meet on one prefix, deny wins.
func Decide(now time.Time, entries []Entry, addr netip.Addr, port rule.Port) Decision {
	chain := []Candidate{}
	for _, e := range entries {
		if e.Prefix.Contains(addr) {
			chain = append(chain, Candidate{Entry: e})
		}
	}
	slices.SortStableFunc(chain, precedence)

	var mine, feeds, learned *Candidate // the first of each kind that counts
	for i := range chain {
		c := &chain[i]
		first := []**Candidate{learnedDeny: &learned, own: &mine, feed: &feeds}[kindOf(c.Entry)]
		switch {
		case c.Entry.Expired(now):
			c.Why = "expired at " + c.Entry.Expires.Format(time.RFC3339)
		case len(c.Entry.Ports) > 0 && !slices.Contains(c.Entry.Ports, port.Number):
			c.Why = fmt.Sprintf("says nothing about port %d", port.Number)
		case *first == nil:
			*first = c
		default:
			c.Why = whyBehind(c.Entry, (*first).Entry)
		}
	}

	winner := mine
	if mine == nil {
		winner = feeds
	} else if feeds != nil {
		feeds.Why = "an entry of the operator covers the source: " + brief(mine.Entry)
	}
	if learned != nil {
		winner = learnedOr(learned, winner)
	}
	if winner == nil {
		return Decision{Verdict: port.Default, Chain: chain}
	}
	winner.Decides = true
	winner.Why = "decides"
	return Decision{Verdict: winner.Entry.Verdict(), Entry: &winner.Entry, Chain: chain}
}

// learnedOr chooses between a learned deny and what would decide without it,
// and says why the other does not.
func learnedOr(learned, other *Candidate) *Candidate {
	switch {
	case other == nil:
		return learned
	case other.Entry.Action == Deny:
		learned.Why = "denied anyway: " + brief(other.Entry)
		return other
	case other.Entry.Immune:
		learned.Why = "the allow is immune: " + brief(other.Entry)
		return other
	}
	other.Why = "a learned deny comes before an allow: " + brief(learned.Entry)
	return learned
}

// kind is what the precedence sorts entries into.
type kind uint8

// The kinds, in the order in which a chain shows them.
const (
	learnedDeny kind = iota
	own
	feed
	kinds
)

func kindOf(e Entry) kind {
	switch {
	case e.Origin == Feed:
		return feed
	case e.Own():
		return own
	}
	return learnedDeny
}

// precedence sorts learned denies first, then the operator's own, then
// feeds'; within a kind the longest prefix, then operator before file before
// learned, then deny before allow, then the name of the feed or host.
func precedence(a, b Candidate) int {
	action := map[Action]int{Deny: 0, Allow: 1}
	return cmp.Or(
		cmp.Compare(kindOf(a.Entry), kindOf(b.Entry)),
		-cmp.Compare(a.Entry.Prefix.Bits(), b.Entry.Prefix.Bits()),
		cmp.Compare(originRank(a.Entry.Origin), originRank(b.Entry.Origin)),
		cmp.Compare(action[a.Entry.Action], action[b.Entry.Action]),
		cmp.Compare(a.Entry.Feed, b.Entry.Feed),
		cmp.Compare(a.Entry.Name, b.Entry.Name),
	)
}

// whyBehind says why e comes behind first, an entry of its kind.
func whyBehind(e, first Entry) string {
	switch {
	case e.Prefix != first.Prefix:
		return "a longer prefix comes first: " + brief(first)
	case e.Origin != first.Origin:
		return fmt.Sprintf("on the same prefix an entry of origin %s comes before one of %s: %s", first.Origin, e.Origin, brief(first))
	case e.Action != first.Action:
		return "on the same prefix deny comes before allow: " + brief(first)
	}
	return "on the same prefix the first by name is taken: " + brief(first)
}

func brief(e Entry) string { return fmt.Sprintf("%s %s", e.Action, e.Prefix) }

// Decide is the function Decide over the entries that cover the address.
func (s *Set) Decide(now time.Time, addr netip.Addr, port rule.Port) Decision {
	addr = addr.WithZone("")
	return Decide(now, slices.Collect(s.Covering(addr)), addr, port)
}
