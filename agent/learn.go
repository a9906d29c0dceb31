package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// learnGroup is from how many sources of one network on the network is proposed
// instead of each of them.
const learnGroup = 4

// learn answers GET /v1/learn: entries for the sources that no entry covers and
// that were dropped or, on a port that only observes, would have been.
func (a *Agent) learn(r *http.Request) (any, error) {
	q := r.URL.Query()
	since, err := a.sinceOf(q, "7d")
	if err != nil {
		return nil, err
	}
	least, err := numberOf(q, "min", 1)
	if err != nil {
		return nil, err
	}
	set, p := a.state()
	ports, err := p.portsOfRequest(q.Get("port"))
	if err != nil {
		return nil, err
	}
	rows, err := a.journal.attempts.Since(since)
	if err != nil {
		a.log.Warn("learning without a part of the journal", "error", err)
	}
	text, err := a.policyText(r.Context())
	if err != nil {
		return nil, err
	}
	now := a.now()
	unknown := rows[:0]
	for _, row := range rows {
		of := slices.ContainsFunc(ports, func(port rule.Port) bool { return port.Number == row.Port })
		if of && row.Reason == loader.NoEntry.String() && would(set, now, row, p) == rule.Drop {
			unknown = append(unknown, row)
		}
	}
	return control.Learned{
		Since: since, Policy: text,
		Proposals: propose(unknown, uint64(least), p),
	}, nil
}

// group is a network, and the sources in it.
type group struct {
	attempts uint64
	last     time.Time
	ports    []uint16
	sources  []netip.Prefix
}

func (g *group) add(r journal.Attempt) {
	g.attempts += r.Count
	g.last = later(g.last, r.Last)
	g.ports = withPort(g.ports, r.Port)
	if !slices.Contains(g.sources, r.Source) {
		g.sources = append(g.sources, r.Source)
	}
}

// network is what sources are grouped by: the usual smallest networks that are
// given out.
func network(source netip.Prefix) netip.Prefix {
	bits := 24
	if source.Addr().Is6() {
		bits = 48
	}
	p, err := source.Addr().Prefix(min(bits, source.Bits()))
	if err != nil {
		return source
	}
	return p
}

func attempts(n uint64) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// propose makes entries of the rows, the most wanted first.
func propose(rows []journal.Attempt, least uint64, p plan) []control.Proposal {
	networks, single := map[netip.Prefix]*group{}, map[netip.Prefix]*group{}
	for _, r := range rows {
		for by, key := range map[*map[netip.Prefix]*group]netip.Prefix{&networks: network(r.Source), &single: r.Source} {
			if (*by)[key] == nil {
				(*by)[key] = &group{}
			}
			(*by)[key].add(r)
		}
	}
	out := []control.Proposal{}
	add := func(prefix netip.Prefix, g *group) {
		if g.attempts < least {
			return
		}
		e := policy.Entry{Action: policy.Allow, Prefix: prefix, Origin: policy.Learned,
			Note: fmt.Sprintf("%s up to %s", attempts(g.attempts), g.last.Format(time.DateOnly))}
		if len(g.ports) < len(p.ports) {
			e.Ports = g.ports
		}
		slices.SortFunc(g.sources, func(x, y netip.Prefix) int { return x.Addr().Compare(y.Addr()) })
		out = append(out, control.Proposal{Entry: e, Sources: g.sources, Attempts: g.attempts, Last: g.last})
	}
	for prefix, g := range networks {
		if len(g.sources) >= learnGroup {
			add(prefix, g)
			continue
		}
		for _, s := range g.sources {
			add(s, single[s])
		}
	}
	slices.SortFunc(out, func(x, y control.Proposal) int {
		return cmp.Or(cmp.Compare(y.Attempts, x.Attempts), x.Entry.Prefix.Addr().Compare(y.Entry.Prefix.Addr()), cmp.Compare(x.Entry.Prefix.Bits(), y.Entry.Prefix.Bits()))
	})
	return out
}

// policyText is the operator's own entries, names and feeds as text that can be
// applied again: a file's entry that one by command stands before is left out.
func (a *Agent) policyText(ctx context.Context) (string, error) {
	subjects, err := a.subjects(ctx)
	if err != nil {
		return "", err
	}
	set, _ := a.state()
	now := a.now()
	var text strings.Builder
	err = policy.Format(&text, func(yield func(policy.Entry) bool) {
		for e := range set.All() {
			if isOwn(e) && !e.Expired(now) && hiddenBy(set, e, now) == nil && !yield(e) {
				return
			}
		}
	}, policy.FormatOptions{Subjects: subjects, Sorted: true})
	return text.String(), err
}

// hiddenBy is the entry of the same prefix that comes before a file's, or a
// learned allow, and leaves it nothing to say; nil = there is none.
func hiddenBy(set *policy.Set, e policy.Entry, now time.Time) *policy.Entry {
	before := map[policy.Origin][]policy.Origin{policy.File: {policy.Operator}, policy.Learned: {policy.Operator, policy.File}}[e.Origin]
	if !e.Own() {
		return nil
	}
	for _, origin := range before {
		for _, action := range []policy.Action{policy.Allow, policy.Deny} {
			o, ok := set.Get(policy.Key{Origin: origin, Action: action, Prefix: e.Prefix})
			if ok && !o.Expired(now) && covers(o.Ports, e.Ports) {
				return &o
			}
		}
	}
	return nil
}

// covers says whether the ports of one entry are among those of another; none
// means all.
func covers(outer, inner []uint16) bool {
	if len(outer) == 0 {
		return true
	}
	return len(inner) > 0 && !slices.ContainsFunc(inner, func(p uint16) bool { return !slices.Contains(outer, p) })
}
