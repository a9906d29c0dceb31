package main

import (
	"cmp"
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// prefix is an IPv4 prefix, its address in host order.
type prefix struct {
	addr uint32
	bits int
}

func mask(bits int) uint32 { return uint32(^uint64(0) << (32 - bits)) }

func (p prefix) last() uint32 { return p.addr | ^mask(p.bits) }

func addr4(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, a)))
}

func (p prefix) netip() netip.Prefix { return netip.PrefixFrom(addr4(p.addr), p.bits) }

// The bench's own hosts live in 198.18.0.0/15 (RFC 2544); no random prefix
// meets it.
const (
	homeNet    = 0xc6120000
	homeBits   = 15
	homePrefix = "198.18.0.0/15"
)

// mix is how often each length comes: roughly a routing table's, with the single
// hosts and small ranges that senders of mail publish on top, and fewer of the
// shortest, so that a million leave most of the address space uncovered.
var mix = []struct {
	bits   int
	weight float64
}{
	{32, 10}, {29, 1}, {28, 1.5}, {27, 1}, {26, 1}, {25, 1}, {24, 57}, {23, 9}, {22, 10}, {21, 3.5}, {20, 2.5},
	{19, 1}, {18, 0.5}, {17, 0.2}, {16, 0.2}, {15, 0.01}, {14, 0.01}, {13, 0.005}, {12, 0.004},
}

func pickBits(r *rand.Rand) int {
	total := 0.0
	for _, m := range mix {
		total += m.weight
	}
	x := r.Float64() * total
	for _, m := range mix {
		if x -= m.weight; x < 0 {
			return m.bits
		}
	}
	return mix[0].bits
}

// pickAddr is a random unicast address outside of loopback, 10/8 and home.
func pickAddr(r *rand.Rand) uint32 {
	for {
		a := 1<<24 + r.Uint32N(222<<24)
		if top := a >> 24; top != 10 && top != 127 && a&mask(homeBits) != homeNet {
			return a
		}
	}
}

// randomPrefixes makes n disjoint prefixes, sorted; the same ones every time.
func randomPrefixes(n int) []prefix {
	r := rand.New(rand.NewPCG(uint64(n), 4))
	var out []prefix
	for len(out) < n {
		for range n - len(out) + n/50 + 16 {
			bits := pickBits(r)
			p := prefix{pickAddr(r) & mask(bits), bits}
			if home := uint32(homeNet); p.addr > home|^mask(homeBits) || p.last() < home {
				out = append(out, p)
			}
		}
		out = disjoint(out)
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return sorted(out[:n])
}

func sorted(list []prefix) []prefix {
	slices.SortFunc(list, func(a, b prefix) int { return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.bits, b.bits)) })
	return list
}

func disjoint(list []prefix) []prefix {
	out, next := list[:0], uint64(0)
	for _, p := range sorted(list) {
		if uint64(p.addr) >= next {
			out = append(out, p)
			next = uint64(p.last()) + 1
		}
	}
	return out
}

func covers(list []prefix, a uint32) bool {
	i, exact := slices.BinarySearchFunc(list, a, func(p prefix, a uint32) int { return cmp.Compare(p.addr, a) })
	return exact || i > 0 && list[i-1].last() >= a
}

// strangers are n random addresses that none of the sets covers.
func strangers(n int, sets ...[]prefix) []uint32 {
	r := rand.New(rand.NewPCG(1, 44))
	out := make([]uint32, 0, n)
	for len(out) < n {
		a := pickAddr(r)
		if !slices.ContainsFunc(sets, func(s []prefix) bool { return covers(s, a) }) {
			out = append(out, a)
		}
	}
	return out
}

// allowed are n random addresses inside random prefixes of a set.
func allowed(n int, set []prefix) []uint32 {
	r := rand.New(rand.NewPCG(1, 45))
	out := make([]uint32, n)
	for i := range out {
		p := set[r.IntN(len(set))]
		out[i] = p.addr | r.Uint32()&^mask(p.bits)
	}
	return out
}

// repeat fills a list of n with the addresses, over and over.
func repeat(n int, list []uint32) []uint32 {
	return slices.Repeat(list, n/len(list)+1)[:n]
}

// some are n prefixes of a set, spread over all of it.
func some(n int, set []prefix) (out []prefix) {
	for i := range n {
		out = append(out, set[i*len(set)/n])
	}
	return out
}

// makePolicy allows each prefix by an entry of its own with these limits, on the
// three ports of mail.
func makePolicy(set []prefix, l rule.Limits) rule.Policy {
	return rule.Policy{
		Ports:      []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 465, Default: rule.Drop}, {Number: 587, Default: rule.Drop}},
		IPv6Prefix: 64,
		Entries: each(set, func(id uint64, _ prefix) rule.Entry {
			return rule.Entry{ID: id, Verdict: rule.Pass, Limits: l}
		}),
		Rules: each(set, func(id uint64, p prefix) rule.Rule {
			return rule.Rule{Prefix: p.netip(), Steps: []rule.Step{{Ports: [rule.MaxPorts]uint64{id, id, id}}}}
		}),
	}
}

func each[V any](set []prefix, make func(uint64, prefix) V) iter.Seq[V] {
	return func(yield func(V) bool) {
		for i, p := range set {
			if !yield(make(rule.FirstID+uint64(i), p)) {
				return
			}
		}
	}
}

// The limits of a partner as an operator would set them, and those of the
// client whose goodput is measured: looked at, never reached.
var (
	partnerLimits = rule.Limits{Conns: 50, Interval: 50 * time.Millisecond, Burst: 40}
	clientLimits  = rule.Limits{Conns: 100_000, Interval: time.Microsecond, Burst: 100_000}
)
