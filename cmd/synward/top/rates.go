package top

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/agent/control"
)

// reasonKey is what counters are added up by.
type reasonKey struct {
	verdict, reason string
	observed        bool
}

// reasonRate is one reason's packets, of all ports.
type reasonRate struct {
	reasonKey
	perSecond float64
	total     uint64
	ports     []uint16 // where any came
}

// rates adds the counters up by reason, with what came a second since before.
// A counter that has gone back began anew: its rate is 0 this once.
func rates(before, now Look) []reasonRate {
	was := map[control.Counter]uint64{}
	for _, c := range before.Counters {
		was[nameless(c)] = c.Packets
	}
	seconds := now.At.Sub(before.At)
	by := map[reasonKey]*reasonRate{}
	for _, c := range now.Counters {
		key := reasonKey{c.Verdict, c.Reason, c.Observed}
		if by[key] == nil {
			by[key] = &reasonRate{reasonKey: key}
		}
		r := by[key]
		r.total += c.Packets
		if c.Packets > 0 && c.Port != 0 {
			r.ports = append(r.ports, c.Port)
		}
		if !before.At.IsZero() {
			r.perSecond += perSecond(was[nameless(c)], c.Packets, seconds)
		}
	}
	var out []reasonRate
	for _, r := range by {
		if r.total > 0 {
			slices.Sort(r.ports)
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(x, y reasonRate) int {
		return cmp.Or(cmp.Compare(y.perSecond, x.perSecond), cmp.Compare(y.total, x.total), cmp.Compare(x.reason, y.reason), cmp.Compare(x.verdict, y.verdict))
	})
	return out
}

// nameless is a counter without its number: which one it is.
func nameless(c control.Counter) control.Counter {
	c.Packets = 0
	return c
}

// sourceRates are the attempts a second of each source.
func sourceRates(before, now Look) map[netip.Prefix]float64 {
	was := map[netip.Prefix]uint64{}
	for _, s := range before.Sources {
		was[s.Source] = s.Attempts
	}
	out := map[netip.Prefix]float64{}
	for _, s := range now.Sources {
		if n, ok := was[s.Source]; ok {
			out[s.Source] = perSecond(n, s.Attempts, now.At.Sub(before.At))
		}
	}
	return out
}

func perSecond(before, now uint64, took time.Duration) float64 {
	if now < before || took <= 0 {
		return 0
	}
	return float64(now-before) / took.Seconds()
}
