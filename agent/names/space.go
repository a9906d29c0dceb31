package names

import "net/netip"

// space is a set of addresses as prefixes.
type space []netip.Prefix

// minus is the space without what others cover.
func (s space) minus(others space) space {
	for _, o := range others {
		var left space
		for _, p := range s {
			left = append(left, without(p, o)...)
		}
		s = left
	}
	return s
}

// without is a prefix without the part that o covers: the halves beside o on
// the way down to it.
func without(p, o netip.Prefix) space {
	switch {
	case !p.Overlaps(o):
		return space{p}
	case contains(o, p):
		return nil
	}
	var out space
	for bits := p.Bits() + 1; bits <= o.Bits(); bits++ {
		in, _ := o.Addr().Prefix(bits)
		out = append(out, netip.PrefixFrom(flip(in.Addr(), bits-1), bits))
	}
	return out
}

// flip is an address with its nth bit turned, from 0 at the left.
func flip(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	b[n/8] ^= 0x80 >> (n % 8)
	out, _ := netip.AddrFromSlice(b)
	return out
}
