package loader

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader/rule"
)

// Counter is the number of packets with a reason on a port. Port 0 is for
// packets whose port is not in sight. Observed ones would have been dropped,
// and were let pass.
type Counter struct {
	Port     uint16       `json:"port"`
	Reason   Reason       `json:"reason"`
	Verdict  rule.Verdict `json:"verdict"`
	Observed bool         `json:"observed,omitempty"`
	Packets  uint64       `json:"packets"`
}

// slotsPerReason is the ports' slots and one for "port not in sight".
const slotsPerReason = rule.MaxPorts + 1

// Counters reads the counters, summed over the CPUs, those that are not zero,
// by reason and port.
func (f *Filter) Counters() ([]Counter, error) {
	_, cfg, err := f.inForce()
	if err != nil {
		return nil, err
	}
	var out []Counter
	for reason := range Reason(filterReasonREASON_COUNT) {
		for slot := range slotsPerReason {
			sum, err := f.counter(reason, slot)
			if err != nil {
				return nil, err
			}
			c := Counter{Reason: reason, Verdict: reason.Verdict()}
			if slot < rule.MaxPorts {
				c.Port = hostToNet(cfg.Ports[slot].Number)
			}
			if c.Packets = sum.Enforced; c.Packets > 0 {
				out = append(out, c)
			}
			if c.Packets, c.Observed = sum.Observed, true; c.Packets > 0 {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

func (f *Filter) counter(reason Reason, slot int) (filterCounter, error) {
	var cpus []filterCounter
	var sum filterCounter
	if err := f.maps.Counters.Lookup(counterKey(reason, slot), &cpus); err != nil {
		return sum, fmt.Errorf("read counters: %w", err)
	}
	for _, c := range cpus {
		sum.Enforced += c.Enforced
		sum.Observed += c.Observed
	}
	return sum, nil
}

func counterKey(reason Reason, slot int) uint32 {
	return uint32(reason)*slotsPerReason + uint32(slot)
}

// moveCounters makes the counters follow their ports to the slots that the new
// settings give them. A port that is new starts at zero.
func (f *Filter) moveCounters(active uint32, next filterConfig) error {
	now, err := f.config(active)
	if err != nil {
		return err
	}
	for reason := range Reason(filterReasonREASON_COUNT) {
		var was [rule.MaxPorts][]filterCounter
		for slot := range was {
			if err := f.maps.Counters.Lookup(counterKey(reason, slot), &was[slot]); err != nil {
				return fmt.Errorf("read counters: %w", err)
			}
		}
		for slot, port := range next.Ports {
			if port.Number == now.Ports[slot].Number {
				continue
			}
			moved := make([]filterCounter, len(was[0]))
			for old, p := range now.Ports {
				if p.Number == port.Number && p.Number != 0 {
					moved = was[old]
				}
			}
			if err := f.maps.Counters.Put(counterKey(reason, slot), moved); err != nil {
				return fmt.Errorf("move counters: %w", err)
			}
		}
	}
	return nil
}

// Hit is how often an entry has decided an attempt, and when last.
type Hit struct {
	Count uint64    `json:"count"`
	Last  time.Time `json:"last,omitzero"`
}

// Hits reads the hits by entry ID, those that are not zero. They count since
// the entry came into the kernel.
func (f *Filter) Hits() (map[uint64]Hit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.state()
	if err != nil {
		return nil, err
	}
	h, err := f.openHalf(st.half())
	if err != nil || h == nil {
		return nil, err
	}
	defer h.close()
	byID, err := h.readHits()
	if err != nil {
		return nil, err
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	out := make(map[uint64]Hit, len(byID))
	now := time.Now()
	for id, hit := range byID {
		out[id] = Hit{Count: hit.Count, Last: now.Add(-time.Duration(ts.Nano() - int64(hit.Last)))}
	}
	return out, nil
}

func (h *half) readHits() (map[uint64]filterHit, error) {
	byID := map[uint64]filterHit{}
	err := eachElement(h.rows, func(r filterRow) {
		if r.Hit.Count > 0 && r.Entry.Id >= rule.FirstID {
			byID[r.Entry.Id] = r.Hit
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read hits: %w", err)
	}
	return byID, nil
}

// carryHits adds the old half's hits to those that the new one, whose table is
// t, has had since it came in force.
func carryHits(old, now *half, t *table) error {
	was, err := old.readHits()
	if err != nil || len(was) == 0 {
		return err
	}
	mem, err := now.rows.Memory()
	if err != nil {
		return fmt.Errorf("carry hits over: %w", err)
	}
	for id, hit := range was {
		slot, ok := t.slotOf[id]
		if !ok {
			continue
		}
		since := make([]filterHit, 1)
		if _, err := mem.ReadAt(bytesOf(since), hitAt(slot)); err != nil {
			return fmt.Errorf("carry hits over: %w", err)
		}
		since[0].Count += hit.Count
		since[0].Last = max(since[0].Last, hit.Last)
		if _, err := mem.WriteAt(bytesOf(since), hitAt(slot)); err != nil {
			return fmt.Errorf("carry hits over: %w", err)
		}
	}
	return nil
}
