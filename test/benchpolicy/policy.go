package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// clientAddr is the source whose packets are watched. Every policy covers it.
const (
	clientAddr = "198.18.0.2"
	serverAddr = "198.18.0.1"
	homePrefix = "198.18.0.0/24"
)

// prefixes are n prefixes of mixed lengths, a quarter of them IPv6, in the
// order of chance; the same ones every time.
func prefixes(n int, seed uint64) []netip.Prefix {
	r := rand.New(rand.NewPCG(seed, 7))
	seen := make(map[netip.Prefix]bool, n)
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		p := prefix4(r)
		if r.IntN(4) == 0 {
			p = prefix6(r)
		}
		if !seen[p] && !p.Overlaps(netip.MustParsePrefix("198.18.0.0/15")) && !p.Overlaps(spare) {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// spare is where the single changes are: no policy has anything there.
var spare = netip.MustParsePrefix("240.0.0.0/4")

func prefix4(r *rand.Rand) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], r.Uint32())
	bits := 24
	if r.IntN(2) == 0 {
		bits = 16 + r.IntN(17)
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), bits).Masked()
}

func prefix6(r *rand.Rand) netip.Prefix {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], r.Uint64())
	a[0], a[1] = 0x20, 0x01
	return netip.PrefixFrom(netip.AddrFrom16(a), 32+r.IntN(33)).Masked()
}

// text is a policy of the prefixes, and of the client's.
func text(ps []netip.Prefix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "allow %s\n", homePrefix)
	for i, p := range ps {
		fmt.Fprintf(&b, "allow %s max-conns=%d note=\"partner %d\"\n", p, 10+i%10, i)
	}
	return b.String()
}

// lines are prefixes as the standard input of allow add.
func lines(ps []netip.Prefix) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(p.String())
		b.WriteByte('\n')
	}
	return b.String()
}
