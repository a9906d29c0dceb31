// Package rule holds what a policy compiles to: the plain values that the
// loader writes into the kernel's maps. It is pure data without I/O, so that
// the policy's compiler can name these types without linking eBPF.
package rule

import (
	"iter"
	"net/netip"
	"time"
)

// MaxPorts is how many protected ports one filter has room for.
const MaxPorts = 8

// Verdict is what a source gets on a port.
type Verdict uint8

// The verdicts. The numbers are part of the map layout.
const (
	Pass Verdict = 1
	Drop Verdict = 2
)

// String returns "pass" or "drop".
func (v Verdict) String() string {
	switch v {
	case Pass:
		return "pass"
	case Drop:
		return "drop"
	}
	return "undecided"
}

// Limits are the caps on one source, or on a whole prefix where Shared is set.
type Limits struct {
	Conns    uint32        // concurrent connections; 0 = no cap
	Interval time.Duration // time that one new connection costs (50ms = 20/s); 0 = no cap
	Burst    uint32        // new connections at once before Interval counts; at least 1 with an Interval
	Shared   bool          // the caps count for the whole prefix, not per source
}

// Entry is what one entry of the policy tells the kernel. ID is stable for the
// entry's life, over restarts and whole-policy replacements: counters and caps
// are kept under it. IDs below FirstID are reserved for the ports' defaults.
type Entry struct {
	ID      uint64
	Verdict Verdict
	Limits  Limits
	Relay   bool // sources may relay without AUTH
	Immune  bool // a learned deny does not touch it
}

// FirstID is the lowest ID that an entry may have. The default of the port in
// slot n has the ID n + 1.
const FirstID = MaxPorts + 1

// DefaultID is the ID of the default of the port in a slot (0 to MaxPorts-1).
func DefaultID(slot int) uint64 { return uint64(slot) + 1 }

// Port is one protected port. Its index in Policy.Ports is its slot.
type Port struct {
	Number  uint16
	Default Verdict // for sources that no entry covers
	Limits  Limits  // for sources that no entry covers, where Default is Pass
	Observe bool    // count what would be dropped, drop nothing
	All     bool    // drop every TCP segment, not only SYNs, of a source that may not connect
	Reset   bool    // refuse with a RST, rate limited, instead of silence
	Forward bool    // the server is not a socket of this host: a SYN counts for the rate, connections are not counted
}

// Step answers for one stretch of time. Ports holds, per slot, the ID of the
// entry that decides, or 0 for the port's default.
type Step struct {
	Until time.Time // wall clock; zero = for ever
	Ports [MaxPorts]uint64
}

// Rule answers, by one longest-prefix match, for all ports of a prefix. Steps
// are sorted by Until and at least one long; the last has a zero Until. A rule
// with several steps changes its answer by itself, with the agent dead too.
type Rule struct {
	Prefix netip.Prefix // masked
	Steps  []Step
}

// MaxSteps is how many steps the kernel follows. A compiler that needs more
// keeps the first ones; the agent's own timer brings the rest in time.
const MaxSteps = 8

// Policy is the whole compiled policy. The sequences may be walked more than
// once and are not held in memory by this type, so that a policy of a million
// prefixes need not exist twice.
type Policy struct {
	Ports      []Port
	IPv6Prefix int // bits of an IPv6 address that make a source, 1 to 128
	Entries    iter.Seq[Entry]
	Rules      iter.Seq[Rule]
}

// Delta is a change of a policy whose ports and defaults stay as they are.
type Delta struct {
	Entries []Entry        // new, or with other caps
	Set     []Rule         // new, or with another answer
	Remove  []netip.Prefix // rules that are no more
	Gone    []uint64       // entries that are no more
}
