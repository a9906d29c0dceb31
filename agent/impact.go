package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// impactDays is how far back the effect of a change is looked at.
const impactDays = 7

// topAffected is how many sources an impact names.
const topAffected = 10

// impact tries an edit on the attempts of the last days.
func (a *Agent) impact(e *edit, p plan) (*control.Impact, error) {
	now := a.now()
	since := now.AddDate(0, 0, -impactDays)
	rows, err := a.journal.attempts.Since(since)
	var touched bart.Lite
	for _, prefix := range e.changes.Prefixes() {
		touched.Insert(prefix)
	}
	var cuts, admits tally
	for _, r := range rows {
		if !touched.Lookup(r.Source.Addr()) {
			continue
		}
		// One that was merely observed passed; whether it would have been
		// dropped is what mode = "enforce" will bring, not this change.
		switch before, after := would(e.was, now, r, p), would(e.set, now, r, p); {
		case r.Passed && !r.Observed && before == rule.Pass && after == rule.Drop:
			cuts.add(r, p.portsOf(e.was, now, r))
		case (!r.Passed || r.Observed) && refusedByPolicy(r.Reason) && before == rule.Drop && after == rule.Pass:
			admits.add(r, p.portsOf(e.was, now, r))
		}
	}
	return &control.Impact{Since: later(since, a.journal.uses.Since()), Cuts: cuts.affected(), Admits: admits.affected()}, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// refusedByPolicy says whether a reason is the policy's, not a cap's or a
// broken packet's.
func refusedByPolicy(reason string) bool {
	for _, r := range []loader.Reason{loader.NoEntry, loader.Denied, loader.Segment} {
		if r.String() == reason {
			return true
		}
	}
	return false
}

// would is what a set says of a row. Where its port is not known, it passes if
// it passes on any.
func would(s *policy.Set, now time.Time, r journal.Attempt, p plan) rule.Verdict {
	for _, port := range p.ports {
		if r.Port != 0 && r.Port != port.Number {
			continue
		}
		if s.Decide(now, r.Source.Addr(), port).Verdict == rule.Pass {
			return rule.Pass
		}
	}
	return rule.Drop
}

// tally adds rows up by source.
type tally map[netip.Prefix]*control.AffectedSource

func (t *tally) add(r journal.Attempt, ports []uint16) {
	if *t == nil {
		*t = tally{}
	}
	s := (*t)[r.Source]
	if s == nil {
		s = &control.AffectedSource{Source: r.Source}
		(*t)[r.Source] = s
	}
	s.Attempts += r.Count
	s.Last = later(s.Last, r.Last)
	for _, port := range ports {
		s.Ports = withPort(s.Ports, port)
	}
}

// portsOf are the ports that a row is of. The kernel counts connections by
// entry: where their port is not known, it is one of those that the entry opens
// for the source.
func (p plan) portsOf(s *policy.Set, now time.Time, r journal.Attempt) (out []uint16) {
	if r.Port != 0 || !r.Passed {
		return []uint16{r.Port}
	}
	for _, port := range p.ports {
		d := s.Decide(now, r.Source.Addr(), port)
		if d.Verdict == rule.Pass && (d.Entry == nil && r.Entry == 0 || d.Entry != nil && d.Entry.ID() == r.Entry) {
			out = append(out, port.Number)
		}
	}
	return out
}

func withPort(ports []uint16, port uint16) []uint16 {
	if i, found := slices.BinarySearch(ports, port); !found && port != 0 {
		ports = slices.Insert(ports, i, port)
	}
	return ports
}

func (t tally) affected() control.Affected {
	out := control.Affected{Sources: len(t)}
	for _, s := range t {
		out.Attempts += s.Attempts
		out.Top = append(out.Top, *s)
	}
	slices.SortFunc(out.Top, func(a, b control.AffectedSource) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), a.Source.Addr().Compare(b.Source.Addr()))
	})
	out.Top = out.Top[:min(len(out.Top), topAffected)]
	return out
}
