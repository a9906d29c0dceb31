package policy

import (
	"iter"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Caps are the limits on a source where its entry sets none ([caps] of the
// config).
type Caps struct {
	Conns      uint32 // concurrent connections; 0 = no cap
	Rate       Rate   // new connections; zero = no cap
	Burst      uint32 // new connections at once; 0 is taken as 1
	IPv6Prefix int    // bits of an IPv6 address that make a source; 0 is taken as 64
}

// limits are what an entry leaves of the caps.
func (c Caps) limits(e *Entry) rule.Limits {
	if e.MaxConns != nil {
		c.Conns = *e.MaxConns
	}
	if e.Rate != nil {
		c.Rate = *e.Rate
	}
	if e.Burst != nil {
		c.Burst = *e.Burst
	}
	l := rule.Limits{Conns: c.Conns, Interval: c.Rate.Interval(), Shared: e.Shared}
	if l.Interval > 0 {
		l.Burst = max(c.Burst, 1)
	}
	return l
}

func (c Caps) entry(it *item) rule.Entry {
	e := it.terms
	r := rule.Entry{ID: it.id, Verdict: e.Verdict(), Relay: e.Relay, Immune: e.Immune}
	if e.Action == Allow {
		r.Limits = c.limits(e)
	}
	return r
}

// Compile turns the entries that are live at now into rules of which one
// longest-prefix match gives the answer of Decide for every port, now and
// after each expiry to come. A prefix that answers just as the one around it,
// entry by entry, gets no rule. Where an answer changes more than
// rule.MaxSteps times, the first steps are exact and the last one drops
// whatever any later moment would drop, so that an expired allow never
// outlives the agent; compile again before then.
//
// ports are the protected ports in the order of their slots, at most
// rule.MaxPorts; their Limits are filled in from the caps. The set may be
// changed afterwards; the policy stays that of the moment.
func Compile(s *Set, ports []rule.Port, caps Caps, now time.Time) rule.Policy {
	s = s.Clone()
	filled := slices.Clone(ports[:min(len(ports), rule.MaxPorts)])
	for i := range filled {
		filled[i].Limits = rule.Limits{}
		if filled[i].Default == rule.Pass {
			filled[i].Limits = caps.limits(&Entry{})
		}
	}
	bits := caps.IPv6Prefix
	if bits == 0 {
		bits = 64
	}
	return rule.Policy{
		Ports:      filled,
		IPv6Prefix: bits,
		Entries: func(yield func(rule.Entry) bool) {
			for it := range s.items() {
				if !it.expired(now) && !yield(caps.entry(it)) {
					return
				}
			}
		},
		Rules: func(yield func(rule.Rule) bool) {
			w := newWalker(filled, now)
			for r, needed := range w.walk(s.nodes(place{})) {
				if needed && !yield(r) {
					return
				}
			}
		},
	}
}

// walker goes over prefixes in sorted order, so that it meets each after the
// prefixes that contain it, and keeps these on a stack.
type walker struct {
	ports []rule.Port
	now   time.Time
	stack []level
	none  []rule.Step // where no entry is: every port's default, for ever
}

// level is a prefix with live entries and the answer that it gives.
type level struct {
	at    place
	live  []live
	steps []rule.Step
}

// live is what an entry says, ready to be asked.
type live struct {
	id      uint64
	slots   uint8 // bit n: the entry speaks for slot n
	kind    kind
	deny    bool
	immune  bool
	expires time.Time
}

func newWalker(ports []rule.Port, now time.Time) *walker {
	return &walker{ports: ports, now: now, none: []rule.Step{{}}}
}

// walk yields for each prefix the rule for it, and whether it is needed
// because it says something else than the prefix around it.
func (w *walker) walk(nodes iter.Seq2[place, node]) iter.Seq2[rule.Rule, bool] {
	return func(yield func(rule.Rule, bool) bool) {
		for p, n := range nodes {
			if !yield(w.visit(p, n)) {
				return
			}
		}
	}
}

func (w *walker) visit(p place, n node) (rule.Rule, bool) {
	for len(w.stack) > 0 && !w.stack[len(w.stack)-1].at.contains(p) {
		w.stack = w.stack[:len(w.stack)-1]
	}
	around := w.none
	if len(w.stack) > 0 {
		around = w.stack[len(w.stack)-1].steps
	}
	if !w.push(p, n) {
		return rule.Rule{Prefix: p.prefix(), Steps: around}, false
	}
	steps := w.timeline()
	w.stack[len(w.stack)-1].steps = steps
	return rule.Rule{Prefix: p.prefix(), Steps: steps}, !slices.EqualFunc(steps, around, equalSteps)
}

// push puts on the stack what a node says, where that is anything.
func (w *walker) push(p place, n node) bool {
	if len(w.stack) < cap(w.stack) {
		w.stack = w.stack[:len(w.stack)+1] // with what a level before has left, to be used again
	} else {
		w.stack = append(w.stack, level{})
	}
	top := &w.stack[len(w.stack)-1]
	top.at, top.live, top.steps = p, w.live(top.live[:0], n), nil
	if len(top.live) == 0 {
		w.stack = w.stack[:len(w.stack)-1]
		return false
	}
	return true
}

func equalSteps(a, b rule.Step) bool { return a.Ports == b.Ports && a.Until.Equal(b.Until) }

// live adds to out the entries of a node that have not expired, in their order
// of precedence.
func (w *walker) live(out []live, n node) []live {
	for i := range n {
		e := n[i].terms
		if e.Expired(w.now) {
			continue
		}
		l := live{id: n[i].id, kind: kindOf(*e), deny: e.Action == Deny, immune: e.Immune, expires: e.Expires}
		for slot, p := range w.ports {
			if len(e.Ports) == 0 || slices.Contains(e.Ports, p.Number) {
				l.slots |= 1 << slot
			}
		}
		out = append(out, l)
	}
	return out
}

// timeline gives the answer at the top of the stack from now on, step by step.
func (w *walker) timeline() []rule.Step {
	var ends []time.Time
	for _, lv := range w.stack {
		for _, l := range lv.live {
			if !l.expires.IsZero() {
				ends = append(ends, l.expires)
			}
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	ends = slices.CompactFunc(ends, time.Time.Equal)

	ports, denied := w.answer(w.now)
	steps := []rule.Step{{Ports: ports}}
	drops := []uint8{denied}
	for _, end := range ends {
		ports, denied := w.answer(end)
		last := &steps[len(steps)-1]
		if ports == last.Ports {
			continue
		}
		last.Until = end
		steps = append(steps, rule.Step{Ports: ports})
		drops = append(drops, denied)
	}
	return shorten(steps, drops)
}

// answer says, per slot, which entry decides at t, and in which slots the
// verdict is to drop.
func (w *walker) answer(t time.Time) (ports [rule.MaxPorts]uint64, denied uint8) {
	var first [kinds][rule.MaxPorts]*live
	var taken [kinds]uint8
	for i := len(w.stack) - 1; i >= 0; i-- {
		for j := range w.stack[i].live {
			l := &w.stack[i].live[j]
			free := l.slots &^ taken[l.kind]
			if free == 0 || !l.expires.IsZero() && !t.Before(l.expires) {
				continue
			}
			taken[l.kind] |= free
			for slot := range w.ports {
				if free&(1<<slot) != 0 {
					first[l.kind][slot] = l
				}
			}
		}
	}
	for slot, p := range w.ports {
		winner := first[own][slot]
		if winner == nil {
			winner = first[feed][slot]
		}
		if l := first[learnedDeny][slot]; l != nil && (winner == nil || !winner.deny && !winner.immune) {
			winner = l
		}
		drop := p.Default == rule.Drop
		if winner != nil {
			ports[slot], drop = winner.id, winner.deny
		}
		if drop {
			denied |= 1 << slot
		}
	}
	return ports, denied
}

// shorten cuts the steps to what the kernel follows, see Compile.
func shorten(steps []rule.Step, drops []uint8) []rule.Step {
	if len(steps) <= rule.MaxSteps {
		return steps
	}
	last := rule.Step{Ports: steps[len(steps)-1].Ports}
	for slot := range last.Ports {
		for i := rule.MaxSteps - 1; i < len(steps); i++ {
			if drops[i]&(1<<slot) != 0 {
				last.Ports[slot] = steps[i].Ports[slot]
				break
			}
		}
	}
	return append(slices.Clone(steps[:rule.MaxSteps-1]), last)
}
