package policy

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Effect counts rules.
type Effect struct {
	Added   int `json:"added"`
	Updated int `json:"updated"`
	Removed int `json:"removed"`
}

// EffectOf is what a change of some prefixes does to the rules: those that
// Compile makes of the one set and not of the other, or otherwise.
func EffectOf(from, to *Set, ports []rule.Port, now time.Time, changed []netip.Prefix) Effect {
	ports = ports[:min(len(ports), rule.MaxPorts)]
	var e Effect
	roots := outermost(sortPrefixes(changed))
	if len(roots) > to.Len()/8 { // one walk over all is less than so many
		roots = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	for _, root := range roots {
		e.compare(rulesWithin(from, ports, now, root), rulesWithin(to, ports, now, root))
	}
	return e
}

// rulesWithin walks the rules of a prefix and of those inside it, sorted.
func rulesWithin(s *Set, ports []rule.Port, now time.Time, root netip.Prefix) iter.Seq[rule.Rule] {
	return func(yield func(rule.Rule) bool) {
		w := newWalker(ports, now)
		w.descend(s, root)
		for r, needed := range w.walk(s.nodesIn(root)) {
			if needed && !yield(r) {
				return
			}
		}
	}
}

// compare counts what differs between two sorted walks.
func (e *Effect) compare(from, to iter.Seq[rule.Rule]) {
	nextOld, stopOld := iter.Pull(from)
	defer stopOld()
	nextNew, stopNew := iter.Pull(to)
	defer stopNew()
	old, haveOld := nextOld()
	now, haveNew := nextNew()
	for haveOld || haveNew {
		order := 0
		switch {
		case !haveNew:
			order = -1
		case !haveOld:
			order = 1
		default:
			order = comparePrefixes(old.Prefix, now.Prefix)
		}
		switch {
		case order < 0:
			e.Removed++
		case order > 0:
			e.Added++
		case !slices.EqualFunc(old.Steps, now.Steps, equalSteps):
			e.Updated++
		}
		if order <= 0 {
			old, haveOld = nextOld()
		}
		if order >= 0 {
			now, haveNew = nextNew()
		}
	}
}
