package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Recompile compiles only the subtrees of the prefixes whose entries differ
// between two sets (Changes.Prefixes names them). What Compile made of the old
// set, with the delta applied, is what Compile makes of the new one at the
// same moment; entries that have expired elsewhere since stay until the next
// whole Compile.
func Recompile(from, to *Set, ports []rule.Port, caps Caps, now time.Time, changed []netip.Prefix) rule.Delta {
	ports = ports[:min(len(ports), rule.MaxPorts)]
	changed = sortPrefixes(changed)
	var d rule.Delta
	for _, p := range changed {
		entriesOf(&d, from, to, caps, now, p)
		if len(to.node(placeOf(p))) == 0 {
			d.Remove = append(d.Remove, p)
		}
	}
	for _, root := range outermost(changed) {
		w := newWalker(ports, now)
		w.descend(to, root)
		for r, needed := range w.walk(to.nodesIn(root)) {
			if needed {
				d.Set = append(d.Set, r)
			} else {
				d.Remove = append(d.Remove, r.Prefix)
			}
		}
	}
	return d
}

// entriesOf adds what changes in the entries of one prefix.
func entriesOf(d *rule.Delta, from, to *Set, caps Caps, now time.Time, p netip.Prefix) {
	var stays []uint64
	for it := range to.at(placeOf(p)) {
		if !it.expired(now) {
			d.Entries = append(d.Entries, caps.entry(it))
			stays = append(stays, it.id)
		}
	}
	for it := range from.at(placeOf(p)) {
		if !slices.Contains(stays, it.id) {
			d.Gone = append(d.Gone, it.id)
		}
	}
}

// descend fills the stack with the prefixes around root.
func (w *walker) descend(s *Set, root netip.Prefix) {
	var around []item
	for it := range s.around(placeOf(root)) {
		if it.at != placeOf(root) {
			around = append(around, *it)
		}
	}
	for i := len(around); i > 0; { // longest first: outermost last
		j := i
		for i--; i > 0 && around[i-1].at == around[i].at; i-- {
		}
		w.visit(around[i].at, around[i:j])
	}
}

// sortPrefixes sorts so that a prefix comes before what it contains, each once.
func sortPrefixes(ps []netip.Prefix) []netip.Prefix {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, comparePrefixes)
	return slices.Compact(ps)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// outermost keeps of sorted prefixes those that no other contains.
func outermost(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if len(out) == 0 || !placeOf(out[len(out)-1]).contains(placeOf(p)) {
			out = append(out, p)
		}
	}
	return out
}
