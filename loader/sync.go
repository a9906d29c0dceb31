package loader

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
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
func (f *Filter) Sync(pol rule.Policy) (Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(pol.Ports) > rule.MaxPorts {
		return Change{}, fmt.Errorf("%d ports: there is room for %d", len(pol.Ports), rule.MaxPorts)
	}
	f.readClock()
	st, err := f.state()
	if err != nil {
		return Change{}, err
	}
	now, err := f.config(st.Active)
	if err != nil {
		return Change{}, err
	}
	cfg := encodeConfig(pol, now)
	h, err := f.openHalf(st.Active)
	if err != nil {
		return Change{}, err
	}
	if h == nil || cfg != now {
		return f.replace(pol, cfg, h, st)
	}
	defer h.close()
	have, err := h.snapshot()
	if err != nil {
		return Change{}, err
	}
	p := newPlan(have, false, f.offset)
	err = p.work(pol)
	if errors.Is(err, errNoRoom) || err == nil && len(p.puts)+len(p.deletes) > replaceAbove {
		return f.replace(pol, cfg, h, st)
	}
	if err != nil {
		return Change{}, fmt.Errorf("translate the policy: %w", err)
	}
	return p.change(), f.amend(h, p)
}

// amend applies a plan to the half in force.
func (f *Filter) amend(h *half, p *plan) error {
	if err := h.write(p); err != nil {
		return err
	}
	for _, prefix := range p.deletes {
		if err := h.remove(prefix); err != nil {
			return fmt.Errorf("remove %s: %w", prefix, err)
		}
	}
	rules, entries := p.unused()
	if len(rules)+len(entries) == 0 {
		return nil
	}
	if err := f.awaitPackets(h); err != nil {
		return err
	}
	if err := writeSlots(h.rules, rules); err != nil {
		return fmt.Errorf("clear rules: %w", err)
	}
	if err := writeSlots(h.entries, entries); err != nil {
		return fmt.Errorf("clear entries: %w", err)
	}
	return nil
}

// replace builds the policy in the half that is not in force and turns to it.
func (f *Filter) replace(pol rule.Policy, cfg filterConfig, old *half, st filterState) (Change, error) {
	p := newPlan(snapshot{}, true, f.offset)
	if err := p.work(pol); err != nil {
		return Change{}, fmt.Errorf("translate the policy: %w", err)
	}
	h, err := f.newHalf(1-st.Active, room(p.next.rule), room(p.next.entry))
	if err != nil {
		return Change{}, err
	}
	defer h.close()
	if err := h.write(p); err != nil {
		return Change{}, err
	}
	if err := f.install(h); err != nil {
		return Change{}, err
	}
	if err := f.maps.Configs.Put(h.index, cfg); err != nil {
		return Change{}, fmt.Errorf("write the settings: %w", err)
	}
	if err := f.moveCounters(st.Active, cfg); err != nil {
		return Change{}, err
	}
	st.Active = h.index
	if err := f.maps.States.Put(uint32(0), st); err != nil {
		return Change{}, fmt.Errorf("turn to the new policy: %w", err)
	}
	c := p.change()
	return c, f.retire(old, h)
}

// room leaves a half as much space again as it needs now.
func room(n uint32) int { return max(1024, 2*int(n)) }

// retire carries the old half's hits over and frees its memory.
func (f *Filter) retire(old, now *half) error {
	if old == nil {
		return nil
	}
	defer old.close()
	if err := f.awaitPackets(now); err != nil {
		return err
	}
	if err := carryHits(old, now); err != nil {
		return err
	}
	empty, err := f.newHalf(old.index, 1, rule.MaxPorts)
	if err != nil {
		return err
	}
	defer empty.close()
	return f.install(empty)
}

// write puts what the plan adds: entries before the rules that name them, rules
// before the prefixes that point to them.
func (h *half) write(p *plan) error {
	fresh := map[uint32]filterHit{}
	for slot, e := range p.entries {
		if int(slot) >= len(p.have.entries) || p.have.entries[slot].Id != e.Id {
			fresh[slot] = filterHit{}
		}
	}
	if err := writeSlots(h.hits, fresh); err != nil {
		return fmt.Errorf("write hits: %w", err)
	}
	if err := writeSlots(h.entries, p.entries); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	if err := writeSlots(h.rules, p.rules); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	for prefix, slot := range p.puts {
		if err := h.put(prefix, slot); err != nil {
			return fmt.Errorf("write %s: %w", prefix, err)
		}
	}
	return nil
}

func (h *half) put(p netip.Prefix, slot uint32) error {
	if p.Addr().Is4() {
		return h.v4.Put(key4(p), slot)
	}
	return h.v6.Put(key6(p), slot)
}

func (h *half) remove(p netip.Prefix) error {
	var err error
	if p.Addr().Is4() {
		err = h.v4.Delete(key4(p))
	} else {
		err = h.v6.Delete(key6(p))
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

func (p *plan) change() Change {
	c := Change{Added: p.added, Updated: len(p.puts) - p.added, Removed: len(p.deletes)}
	for slot, e := range p.entries {
		if int(slot) < len(p.have.entries) && p.have.entries[slot].Id == e.Id {
			c.Updated++
		}
	}
	return c
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
			Number: hostToNet(p.Number), Observe: flag(p.Observe), All: flag(p.All), Reset: flag(p.Reset),
		}
		if !p.Observe {
			cfg.Enforcing = 1
		}
	}
	for cfg.Seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, says its documentation
		cfg.Seed = binary.NativeEndian.Uint64(b[:])
	}
	return cfg
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
