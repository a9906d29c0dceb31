package loader

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader/rule"
)

// Change counts the rules that Sync had to write.
type Change struct {
	Added   int `json:"added"`
	Updated int `json:"updated"` // also entries whose caps changed
	Removed int `json:"removed"`
}

// replaceAbove is how many changed prefixes are cheaper, and better seen all at
// once, in the other half.
const replaceAbove = 10_000

// Sync makes the kernel's rules equal the policy, in force when it returns. It
// reads the maps first, so it also mends what somebody changed behind the
// agent's back. Additions come before removals; where ports change, or much
// else, the whole policy changes for all packets at once.
func (f *Filter) Sync(pol rule.Policy) (Change, error) { return f.sync(pol, false) }

// Replace is Sync for all packets at once, however little changes: whatever
// ends this process, the kernel has the old policy or the new one. It counts
// every rule as added.
func (f *Filter) Replace(pol rule.Policy) (Change, error) { return f.sync(pol, true) }

func (f *Filter) sync(pol rule.Policy, whole bool) (Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch, err := f.fill(pol, whole)
	if err == nil && f.succeeds {
		err = f.takeOver()
	}
	return ch, err
}

// fill writes the policy to this filter's maps.
func (f *Filter) fill(pol rule.Policy, whole bool) (Change, error) {
	if len(pol.Ports) > rule.MaxPorts {
		return Change{}, fmt.Errorf("%d ports: there is room for %d", len(pol.Ports), rule.MaxPorts)
	}
	f.readClock()
	st, now, err := f.inForce()
	if err != nil {
		return Change{}, err
	}
	cfg := encodeConfig(pol, now)
	h, err := f.openHalf(st.half())
	if err != nil {
		return Change{}, err
	}
	defer h.close()
	if h == nil || cfg != now || whole {
		return f.replace(pol, cfg, h, st)
	}
	f.table = nil // until it is known to be what the kernel has
	t, err := h.table(len(pol.Ports), f.offset)
	if err != nil {
		return Change{}, err
	}
	e := t.edit()
	err = e.equal(pol)
	if errors.Is(err, errNoRoom) || err == nil && e.prefixesChanged() > replaceAbove {
		return f.replace(pol, cfg, h, st)
	}
	if err != nil {
		return Change{}, fmt.Errorf("translate the policy: %w", err)
	}
	atOnce, err := f.holdIndex(e)
	if err != nil {
		return Change{}, err
	}
	return e.change(), f.amend(h, e, atOnce)
}

// Update changes some rules of the policy that the last Sync brought, for all
// packets at once and in force when it returns: of a policy of a million prefixes
// in milliseconds. The error wraps ErrNeedsSync where it cannot; where it fails, a
// Sync puts things right.
func (f *Filter) Update(d rule.Delta) (Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.table
	if t == nil {
		return Change{}, ErrNeedsSync
	}
	st, err := f.state()
	if err != nil {
		return Change{}, err
	}
	h, err := f.openHalf(st.half())
	if err != nil || h == nil {
		return Change{}, errors.Join(ErrNeedsSync, err)
	}
	defer h.close()
	f.table = nil
	e := t.edit()
	if err := e.apply(d); err != nil {
		return Change{}, errors.Join(ErrNeedsSync, err)
	}
	atOnce, err := f.holdIndex(e)
	if err != nil {
		return Change{}, err
	}
	if e.prefixesChanged() > 1 && !atOnce {
		return Change{}, fmt.Errorf("%w: they cannot change at once", ErrNeedsSync)
	}
	return e.change(), f.amend(h, e, atOnce)
}

// ErrNeedsSync says that Update does not know the kernel's rules, or that they
// have no room for the change.
var ErrNeedsSync = errors.New("the rules need a whole sync")

// equal makes the table say what the policy says.
func (e *edit) equal(pol rule.Policy) error {
	live := make(map[uint64]bool, len(e.slotOf))
	for r := range pol.Entries {
		live[r.ID] = true
		if err := e.setEntry(r); err != nil {
			return err
		}
	}
	have := e.prefixes.len()
	seen := make([]bool, have)
	for r := range pol.Rules {
		place, err := e.set(r)
		if err != nil {
			return err
		}
		if place >= 0 {
			seen[place] = true
		}
	}
	for place := range have {
		if !seen[place] {
			e.remove(e.prefixes.at(place))
		}
	}
	for id := range e.slotOf {
		if id >= rule.FirstID && !live[id] {
			e.dropEntry(id)
		}
	}
	return nil
}

// apply makes the changes of a delta.
func (e *edit) apply(d rule.Delta) error {
	for _, r := range d.Entries {
		if err := e.setEntry(r); err != nil {
			return err
		}
	}
	for _, r := range d.Set {
		if _, err := e.set(r); err != nil {
			return err
		}
	}
	for _, p := range d.Remove {
		e.remove(p)
	}
	for _, id := range d.Gone {
		e.dropEntry(id)
	}
	return nil
}

func (e *edit) change() Change {
	return Change{Added: e.added, Updated: e.updated, Removed: len(e.removes)}
}

// replace builds the policy and its index beside those in force and turns to both.
func (f *Filter) replace(pol rule.Policy, cfg filterConfig, old *half, st filterState) (Change, error) {
	f.table = nil
	e := newTable(len(pol.Ports), f.offset).edit()
	if err := e.equal(pol); err != nil {
		return Change{}, fmt.Errorf("translate the policy: %w", err)
	}
	h, err := f.newHalf(1-st.half(), room(len(e.rules)), room(len(e.entries)))
	if err != nil {
		return Change{}, err
	}
	defer h.close()
	if err := h.write(e); err != nil {
		return Change{}, err
	}
	if err := f.install(h); err != nil {
		return Change{}, err
	}
	if err := f.maps.Configs.Put(h.index, cfg); err != nil {
		return Change{}, fmt.Errorf("write the settings: %w", err)
	}
	if err := f.moveCounters(st.half(), cfg); err != nil {
		return Change{}, err
	}
	e.prefixes.apply(e.puts, e.removes)
	e.settle()
	e.fit(int(h.rules.MaxEntries()), int(h.rows.MaxEntries()))
	x := buildIndex(e.prefixes)
	b, err := f.spareBuffer(x)
	if err != nil {
		return Change{}, err
	}
	st.Current = h.index
	if err := f.turn(st, b, x); err != nil {
		return Change{}, err
	}
	f.table = e.table
	return e.change(), f.retire(old, h, e.table)
}

// fit gives a table the size of the half that was made for it.
func (t *table) fit(rules, entries int) {
	for slot := rules - 1; slot >= len(t.rules); slot-- {
		t.freeRules = append(t.freeRules, uint32(slot))
	}
	for slot := entries - 1; slot >= len(t.entries); slot-- {
		t.freeEntries = append(t.freeEntries, uint32(slot))
	}
	t.rules = append(t.rules, make([]filterRule, rules-len(t.rules))...)
	t.refs = append(t.refs, make([]int32, rules-len(t.refs))...)
	t.entries = append(t.entries, make([]filterEntry, entries-len(t.entries))...)
	t.grow = false
}

// room leaves a half as much space again as it needs now.
func room(n int) int { return max(1024, n+n/2) }

// retire carries the old half's hits over and frees its memory.
func (f *Filter) retire(old, now *half, t *table) error {
	if old == nil {
		return nil
	}
	if err := f.awaitPackets(now); err != nil {
		return err
	}
	if err := carryHits(old, now, t); err != nil {
		return err
	}
	empty, err := f.newHalf(old.index, 1, rule.MaxPorts)
	if err != nil {
		return err
	}
	defer empty.close()
	return f.install(empty)
}

// inForce is the state, and the settings of the half that it names.
func (f *Filter) inForce() (filterState, filterConfig, error) {
	st, err := f.state()
	if err != nil {
		return st, filterConfig{}, err
	}
	cfg, err := f.config(st.half())
	return st, cfg, err
}

func (f *Filter) config(half uint32) (filterConfig, error) {
	var cfg filterConfig
	if err := f.maps.Configs.Lookup(half, &cfg); err != nil {
		return cfg, fmt.Errorf("read the settings: %w", err)
	}
	return cfg, nil
}

// encodeConfig takes over what the policy does not say: the seed that the meters
// hang on, and whose sockets are counted.
func encodeConfig(pol rule.Policy, now filterConfig) filterConfig {
	cfg := filterConfig{Ipv6Prefix: uint32(pol.IPv6Prefix), Seed: now.Seed, Netns: now.Netns, Epoch: max(1, now.Epoch)}
	for i, p := range pol.Ports {
		cfg.Ports[i] = filterPort{
			Number: hostToNet(p.Number), Observe: flag(p.Observe), All: flag(p.All), Reset: flag(p.Reset), Forward: flag(p.Forward),
		}
		cfg.Defaults[i] = encodeEntry(rule.Entry{ID: rule.DefaultID(i), Verdict: p.Default, Limits: p.Limits})
		if !p.Observe {
			cfg.Enforcing = 1
		}
	}
	spreadPorts(&cfg)
	for cfg.Seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, says its documentation
		cfg.Seed = binary.NativeEndian.Uint64(b[:])
	}
	return cfg
}

// spreadPorts looks for a factor that gives every port a hash of its own.
func spreadPorts(cfg *filterConfig) {
	for spread := uint32(0x9e3779b1); ; spread += 2 {
		ports, taken := 0, map[uint32]bool{}
		cfg.Slots = [len(cfg.Slots)]uint8{}
		for slot, p := range cfg.Ports {
			if p.Number == 0 {
				continue
			}
			ports++
			hash := uint32(p.Number) * spread >> 26
			taken[hash], cfg.Slots[hash] = true, uint8(slot)
		}
		if len(taken) == ports {
			cfg.Spread = spread
			return
		}
	}
}

func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

// hostToNet turns a port into network order, and back.
func hostToNet(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// readClock follows the wall clock's offset to CLOCK_BOOTTIME. Less than two
// seconds is jitter, which would only rewrite every rule with an expiry.
func (f *Filter) readClock() {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return
	}
	offset := time.Duration(time.Now().UnixNano() - ts.Nano())
	if d := offset - f.offset; d > 2*time.Second || d < -2*time.Second {
		f.offset = offset
	}
}
