package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/synward/synward/loader/rule"
)

// errNoRoom says that a half is too small for the policy.
var errNoRoom = errors.New("no room in this half")

// plan is what has to be written so that a half equals a policy. It is worked
// out against what the half holds; against an empty one it is the whole policy.
type plan struct {
	have    snapshot
	grow    bool                  // a half of any size is going to be made for it
	offset  time.Duration         // wall clock less CLOCK_BOOTTIME
	slotOf  map[uint64]uint32     // entry ID → slot
	ruleOf  map[filterRule]uint32 // content → slot
	inUse   struct{ rules, entries map[uint32]bool }
	next    struct{ rule, entry uint32 } // where the search for a free slot goes on
	entries map[uint32]filterEntry
	rules   map[uint32]filterRule
	puts    map[netip.Prefix]uint32
	deletes []netip.Prefix
	added   int
}

func newPlan(have snapshot, grow bool, offset time.Duration) *plan {
	p := &plan{
		have: have, grow: grow, offset: offset,
		slotOf: map[uint64]uint32{}, ruleOf: map[filterRule]uint32{},
		entries: map[uint32]filterEntry{}, rules: map[uint32]filterRule{}, puts: map[netip.Prefix]uint32{},
	}
	p.inUse.rules, p.inUse.entries = map[uint32]bool{0: true}, map[uint32]bool{}
	for slot, e := range have.entries {
		if e.Id != 0 {
			p.slotOf[e.Id] = uint32(slot)
		}
	}
	for slot, r := range have.rules {
		if r != (filterRule{}) {
			p.ruleOf[r] = uint32(slot)
		}
	}
	p.next.rule, p.next.entry = 1, rule.MaxPorts
	return p
}

// work fills the plan from a policy.
func (p *plan) work(pol rule.Policy) error {
	for slot, port := range pol.Ports {
		def := rule.Entry{ID: rule.DefaultID(slot), Verdict: port.Default, Limits: port.Limits}
		p.inUse.entries[uint32(slot)] = true
		p.putEntry(uint32(slot), encodeEntry(def))
	}
	for e := range pol.Entries {
		if e.ID < rule.FirstID {
			return fmt.Errorf("entry with the reserved id %d", e.ID)
		}
		if err := p.entry(e); err != nil {
			return err
		}
	}
	seen := make(map[netip.Prefix]bool, len(p.have.prefixes))
	for r := range pol.Rules {
		slot, err := p.chain(r.Steps)
		if err != nil {
			return fmt.Errorf("rule for %s: %w", r.Prefix, err)
		}
		seen[r.Prefix] = true
		if old, ok := p.have.prefixes[r.Prefix]; !ok || old != slot {
			p.puts[r.Prefix] = slot
			if !ok {
				p.added++
			}
		}
	}
	for prefix := range p.have.prefixes {
		if !seen[prefix] {
			p.deletes = append(p.deletes, prefix)
		}
	}
	return nil
}

func (p *plan) putEntry(slot uint32, e filterEntry) {
	if int(slot) >= len(p.have.entries) || p.have.entries[slot] != e {
		p.entries[slot] = e
	}
}

func (p *plan) entry(e rule.Entry) error {
	slot, ok := p.slotOf[e.ID]
	if !ok {
		for int(p.next.entry) < len(p.have.entries) && p.have.entries[p.next.entry].Id != 0 {
			p.next.entry++
		}
		if !p.grow && int(p.next.entry) >= len(p.have.entries) {
			return errNoRoom
		}
		slot = p.next.entry
		p.next.entry++
		p.slotOf[e.ID] = slot
	}
	p.inUse.entries[slot] = true
	p.putEntry(slot, encodeEntry(e))
	return nil
}

// chain finds or makes the rules for the steps, last first, and returns the
// slot of the first.
func (p *plan) chain(steps []rule.Step) (uint32, error) {
	var next uint32
	for i := min(len(steps), rule.MaxSteps) - 1; i >= 0; i-- {
		r := filterRule{Next: next, Expires: p.bootSeconds(steps[i].Until)}
		for slot, id := range steps[i].Ports {
			r.Entry[slot] = uint32(slot)
			if id == 0 {
				continue
			}
			e, ok := p.slotOf[id]
			if !ok || !p.inUse.entries[e] {
				return 0, fmt.Errorf("no entry has the id %d", id)
			}
			r.Entry[slot] = e
		}
		slot, err := p.rule(r)
		if err != nil {
			return 0, err
		}
		next = slot
	}
	return next, nil
}

func (p *plan) rule(r filterRule) (uint32, error) {
	slot, ok := p.ruleOf[r]
	if !ok {
		for int(p.next.rule) < len(p.have.rules) && p.have.rules[p.next.rule] != (filterRule{}) {
			p.next.rule++
		}
		if !p.grow && int(p.next.rule) >= len(p.have.rules) {
			return 0, errNoRoom
		}
		slot = p.next.rule
		p.next.rule++
		p.ruleOf[r] = slot
		p.rules[slot] = r
	}
	p.inUse.rules[slot] = true
	return slot, nil
}

// bootSeconds is a point of the wall clock on CLOCK_BOOTTIME, rounded up, which
// no step of the wall clock moves while the agent is away.
func (p *plan) bootSeconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	boot := t.Sub(time.Unix(0, 0).Add(p.offset))
	return uint32(max(1, (boot+time.Second-1)/time.Second))
}

// unused are the slots that nothing refers to any more.
func (p *plan) unused() (rules map[uint32]filterRule, entries map[uint32]filterEntry) {
	rules, entries = map[uint32]filterRule{}, map[uint32]filterEntry{}
	for slot, r := range p.have.rules {
		if r != (filterRule{}) && !p.inUse.rules[uint32(slot)] {
			rules[uint32(slot)] = filterRule{}
		}
	}
	for slot, e := range p.have.entries {
		if e != (filterEntry{}) && !p.inUse.entries[uint32(slot)] {
			entries[uint32(slot)] = filterEntry{}
		}
	}
	return rules, entries
}

func encodeEntry(e rule.Entry) filterEntry {
	k := filterEntry{Id: e.ID, Decision: uint8(e.Verdict), Conns: e.Limits.Conns}
	if e.Limits.Interval > 0 {
		k.Interval = uint64(e.Limits.Interval)
		k.Tolerance = uint64(max(1, e.Limits.Burst)-1) * k.Interval
	}
	if e.Limits.Shared {
		k.Shared = 1
	}
	return k
}
