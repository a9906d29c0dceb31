package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// errNoRoom says that a half is too small for the policy.
var errNoRoom = errors.New("no room in this half")

// direct is DIRECT of bpf/abi.h.
const direct = 1 << 31

// table is what a half of the policy maps holds, and where there is room.
type table struct {
	ports       int // in use
	prefixes    mirror
	rules       []filterRule // by slot; slot 0 is not used
	refs        []int32      // prefixes and rules that point to a rule
	ruleOf      map[filterRule]uint32
	freeRules   []uint32
	entries     []filterEntry // by slot; below rule.MaxPorts not used: a port's default
	slotOf      map[uint64]uint32
	freeEntries []uint32
	grow        bool          // a half of any size is going to be made for it
	offset      time.Duration // wall clock less CLOCK_BOOTTIME
}

// newTable is an empty one, for a half that is yet to be made.
func newTable(ports int, offset time.Duration) *table {
	return &table{
		ports: ports, rules: make([]filterRule, 1), refs: make([]int32, 1), ruleOf: map[filterRule]uint32{},
		entries: make([]filterEntry, rule.MaxPorts), slotOf: map[uint64]uint32{},
		grow: true, offset: offset,
	}
}

// loadTable takes up what a half holds.
func loadTable(ports int, rules []filterRule, entries []filterEntry, prefixes mirror, offset time.Duration) *table {
	t := &table{
		ports: ports, prefixes: prefixes, rules: rules, refs: make([]int32, len(rules)), ruleOf: map[filterRule]uint32{},
		entries: entries, slotOf: map[uint64]uint32{}, offset: offset,
	}
	for _, s := range prefixes.v4 {
		t.hold(s.rule)
	}
	for _, s := range prefixes.v6 {
		t.hold(s.rule)
	}
	t.countChains()
	for slot := len(rules) - 1; slot > 0; slot-- {
		if t.refs[slot] > 0 {
			t.ruleOf[rules[slot]] = uint32(slot)
		} else {
			t.freeRules = append(t.freeRules, uint32(slot))
		}
	}
	for slot := len(entries) - 1; slot >= 0; slot-- {
		switch id := entries[slot].Id; {
		case id != 0:
			t.slotOf[id] = uint32(slot)
		case slot >= rule.MaxPorts:
			t.freeEntries = append(t.freeEntries, uint32(slot))
		}
	}
	return t
}

// countChains adds the references that rules in use hold on those after them.
func (t *table) countChains() {
	seen := make([]bool, len(t.rules))
	for slot := range t.rules {
		for s := uint32(slot); t.refs[s] > 0 && !seen[s] && t.rules[s].Next != 0; {
			seen[s] = true
			s = t.rules[s].Next
			t.refs[s]++
		}
	}
}

// edit is a change of a table, and what of it the kernel has to be told.
type edit struct {
	*table
	newEntries map[uint32]filterRow   // their hits begin at zero
	oldEntries map[uint32]filterEntry // with other caps; their hits go on
	putRules   map[uint32]filterRule
	puts       map[netip.Prefix]uint32
	removes    []netip.Prefix
	idleRules  []uint32 // to be free once no packet looks at them
	idle       map[uint32]filterRow
	added      int
	updated    int
}

func (t *table) edit() *edit {
	return &edit{
		table: t, newEntries: map[uint32]filterRow{}, oldEntries: map[uint32]filterEntry{},
		putRules: map[uint32]filterRule{}, puts: map[netip.Prefix]uint32{}, idle: map[uint32]filterRow{},
	}
}

// setEntry adds an entry or changes its caps.
func (e *edit) setEntry(r rule.Entry) error {
	if r.ID < rule.FirstID {
		return fmt.Errorf("entry with the reserved id %d", r.ID)
	}
	k := encodeEntry(r)
	slot, ok := e.slotOf[r.ID]
	if !ok {
		if slot, ok = take(&e.freeEntries, &e.entries, e.grow); !ok {
			return errNoRoom
		}
		e.slotOf[r.ID] = slot
		e.entries[slot], e.newEntries[slot] = k, filterRow{Entry: k}
	}
	if e.entries[slot] == k {
		return nil
	}
	e.entries[slot] = k
	if _, fresh := e.newEntries[slot]; fresh {
		e.newEntries[slot] = filterRow{Entry: k}
	} else {
		e.updated++
		e.oldEntries[slot] = k
	}
	return nil
}

// dropEntry ends an entry. No rule may name it any more.
func (e *edit) dropEntry(id uint64) {
	slot, ok := e.slotOf[id]
	if !ok {
		return
	}
	delete(e.slotOf, id)
	e.entries[slot] = filterEntry{}
	e.idle[slot] = filterRow{}
}

// set gives a prefix its rule. place is where it stood in the table, or -1.
func (e *edit) set(r rule.Rule) (place int, err error) {
	says, err := e.encode(r.Steps)
	if err != nil {
		return -1, fmt.Errorf("rule for %s: %w", r.Prefix, err)
	}
	place, old, ok := e.prefixes.find(r.Prefix)
	if !ok {
		place = -1
	}
	if ok && old == says {
		return place, nil
	}
	e.hold(says)
	if ok {
		e.release(old)
		e.updated++
	} else {
		e.added++
	}
	e.puts[r.Prefix] = says
	return place, nil
}

// remove takes a prefix out.
func (e *edit) remove(p netip.Prefix) {
	if _, old, ok := e.prefixes.find(p); ok {
		e.release(old)
		e.removes = append(e.removes, p)
	}
}

// hold adds a reference to the rule, if that is what a prefix says.
func (t *table) hold(says uint32) {
	if says&direct == 0 {
		t.refs[says]++
	}
}

// release takes one reference off a rule and, with the last, off those after it.
func (e *edit) release(slot uint32) {
	for slot != 0 && slot&direct == 0 {
		e.refs[slot]--
		if e.refs[slot] > 0 {
			return
		}
		e.idleRules = append(e.idleRules, slot)
		slot = e.rules[slot].Next
	}
}

// encode is what a prefix with these steps says: see DIRECT in bpf/abi.h.
func (e *edit) encode(steps []rule.Step) (uint32, error) {
	if e.ports == 0 || len(steps) > 1 || !steps[0].Until.IsZero() {
		return e.chain(steps)
	}
	ids := steps[0].Ports[:e.ports]
	slot, ok := e.slotOf[slices.Max(ids)]
	if !ok || slices.Min(ids) != slices.Max(ids) {
		return e.chain(steps)
	}
	return direct | slot, nil
}

// chain finds or makes the rules for the steps, last first, and returns the
// slot of the first.
func (e *edit) chain(steps []rule.Step) (uint32, error) {
	var next uint32
	for i := min(len(steps), rule.MaxSteps) - 1; i >= 0; i-- {
		r := filterRule{Next: next, Expires: e.bootSeconds(steps[i].Until)}
		for slot, id := range steps[i].Ports {
			r.Entry[slot] = uint32(slot)
			if id == 0 {
				continue
			}
			entry, ok := e.slotOf[id]
			if !ok {
				return 0, fmt.Errorf("no entry has the id %d", id)
			}
			r.Entry[slot] = entry
		}
		slot, err := e.rule(r)
		if err != nil {
			return 0, err
		}
		next = slot
	}
	return next, nil
}

func (e *edit) rule(r filterRule) (uint32, error) {
	if slot, ok := e.ruleOf[r]; ok {
		if e.refs[slot] == 0 && r.Next != 0 { // it comes back: so does its hold on the next
			e.refs[r.Next]++
		}
		return slot, nil
	}
	slot, ok := take(&e.freeRules, &e.rules, e.grow)
	if !ok {
		return 0, errNoRoom
	}
	if int(slot) == len(e.refs) {
		e.refs = append(e.refs, 0)
	}
	if r.Next != 0 {
		e.refs[r.Next]++
	}
	e.rules[slot], e.ruleOf[r], e.putRules[slot] = r, slot, r
	return slot, nil
}

// take is a free slot, of a table that may grow or may not.
func take[T any](free *[]uint32, all *[]T, grow bool) (uint32, bool) {
	if n := len(*free); n > 0 {
		slot := (*free)[n-1]
		*free = (*free)[:n-1]
		return slot, true
	}
	if !grow {
		return 0, false
	}
	var zero T
	*all = append(*all, zero)
	return uint32(len(*all) - 1), true
}

func (e *edit) prefixesChanged() int { return len(e.puts) + len(e.removes) }

// indexed says whether an index that answers for IPv6 answers for all prefixes of
// the edit, before it and after: it has chunks only of /32s that a prefix of 32 to
// 64 bits lies in, see build6.
func (e *edit) indexed() bool {
	return !e.any(func(p netip.Prefix) bool { return p.Addr().Is6() && (p.Bits() < 32 || p.Bits() > 64) })
}

func (e *edit) has6() bool { return e.any(func(p netip.Prefix) bool { return p.Addr().Is6() }) }

// any says whether one of the edit's prefixes is so.
func (e *edit) any(so func(netip.Prefix) bool) bool {
	for p := range e.puts {
		if so(p) {
			return true
		}
	}
	return slices.ContainsFunc(e.removes, so)
}

// settle ends the edit once the kernel has it and no packet looks at what it
// dropped.
func (e *edit) settle() {
	for _, slot := range e.idleRules {
		if e.refs[slot] > 0 || e.rules[slot] == (filterRule{}) {
			continue // it came back, or was listed twice
		}
		delete(e.ruleOf, e.rules[slot])
		e.rules[slot] = filterRule{}
		e.freeRules = append(e.freeRules, slot)
	}
	for slot := range e.idle {
		e.freeEntries = append(e.freeEntries, slot)
	}
}

// bootSeconds is a point of the wall clock on CLOCK_BOOTTIME, rounded up, which
// no step of the wall clock moves while the agent is away.
func (t *table) bootSeconds(at time.Time) uint32 {
	if at.IsZero() {
		return 0
	}
	boot := at.Sub(time.Unix(0, 0).Add(t.offset))
	return uint32(max(1, (boot+time.Second-1)/time.Second))
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
