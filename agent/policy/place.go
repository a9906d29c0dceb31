package policy

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// place is a prefix as it is kept by the million: without a pointer, and quick
// to compare. The address begins at the top of hi, also an IPv4 one.
type place struct {
	hi, lo uint64
	bits   uint8
	six    bool
}

func placeOf(p netip.Prefix) place {
	a := p.Addr()
	if a.Is4() {
		b := a.As4()
		return place{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32, bits: uint8(p.Bits())}
	}
	b := a.As16()
	return place{hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]), bits: uint8(p.Bits()), six: true}
}

func (p place) prefix() netip.Prefix {
	if !p.six {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(p.hi>>32))
		return netip.PrefixFrom(netip.AddrFrom4(b), int(p.bits))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.hi)
	binary.BigEndian.PutUint64(b[8:], p.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), int(p.bits))
}

// compare orders IPv4 before IPv6, by address, and a prefix before what it
// contains.
func (p place) compare(o place) int {
	if p.six != o.six {
		if o.six {
			return -1
		}
		return 1
	}
	if c := cmp.Compare(p.hi, o.hi); c != 0 {
		return c
	}
	if c := cmp.Compare(p.lo, o.lo); c != 0 {
		return c
	}
	return cmp.Compare(p.bits, o.bits)
}

// common is how many leading bits two places of one family share.
func (p place) common(o place) int {
	n := bits.LeadingZeros64(p.hi ^ o.hi)
	if n == 64 {
		n += bits.LeadingZeros64(p.lo ^ o.lo)
	}
	return min(n, int(p.bits), int(o.bits))
}

// contains says whether o is p or lies in it.
func (p place) contains(o place) bool {
	return p.six == o.six && p.bits <= o.bits && p.common(o) == int(p.bits)
}

// shorten is the prefix of n bits around p.
func (p place) shorten(n int) place {
	p.bits = uint8(n)
	if n <= 64 {
		p.hi, p.lo = p.hi&^(^uint64(0)>>n), 0
	} else {
		p.lo &^= ^uint64(0) >> (n - 64)
	}
	return p
}
