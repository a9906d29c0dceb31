package loader

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// slot4 and slot6 are one prefix of a trie with the slot of its rule, as small
// as can be: a million of them are held.
type slot4 struct {
	addr uint32
	bits uint8
	rule uint32
}

type slot6 struct {
	hi, lo uint64
	bits   uint8
	rule   uint32
}

func (s slot4) prefix() netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], s.addr)
	return netip.PrefixFrom(netip.AddrFrom4(a), int(s.bits))
}

func (s slot6) prefix() netip.Prefix {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], s.hi)
	binary.BigEndian.PutUint64(a[8:], s.lo)
	return netip.PrefixFrom(netip.AddrFrom16(a), int(s.bits))
}

func newSlot4(p netip.Prefix, rule uint32) slot4 {
	a := p.Addr().As4()
	return slot4{addr: binary.BigEndian.Uint32(a[:]), bits: uint8(p.Bits()), rule: rule}
}

func newSlot6(p netip.Prefix, rule uint32) slot6 {
	a := p.Addr().As16()
	return slot6{hi: binary.BigEndian.Uint64(a[:8]), lo: binary.BigEndian.Uint64(a[8:]), bits: uint8(p.Bits()), rule: rule}
}

// In this order a prefix comes right before those inside it.

func compare4(a, b slot4) int {
	return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.bits, b.bits))
}

func compare6(a, b slot6) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo), cmp.Compare(a.bits, b.bits))
}

// mirror is what the tries of a half hold, sorted.
type mirror struct {
	v4 []slot4
	v6 []slot6
}

func (m *mirror) len() int { return len(m.v4) + len(m.v6) }

// find is the prefix's place among all, and the slot of its rule.
func (m *mirror) find(p netip.Prefix) (place int, rule uint32, ok bool) {
	if p.Addr().Is4() {
		place, ok = slices.BinarySearchFunc(m.v4, newSlot4(p, 0), compare4)
		if ok {
			rule = m.v4[place].rule
		}
		return place, rule, ok
	}
	place, ok = slices.BinarySearchFunc(m.v6, newSlot6(p, 0), compare6)
	if ok {
		rule = m.v6[place].rule
	}
	return len(m.v4) + place, rule, ok
}

// at is the prefix at a place.
func (m *mirror) at(place int) netip.Prefix {
	if place < len(m.v4) {
		return m.v4[place].prefix()
	}
	return m.v6[place-len(m.v4)].prefix()
}

// apply puts and removes; a prefix is in one of the two only.
func (m *mirror) apply(puts map[netip.Prefix]uint32, removes []netip.Prefix) {
	var put4 []slot4
	var put6 []slot6
	for p, rule := range puts {
		if p.Addr().Is4() {
			put4 = append(put4, newSlot4(p, rule))
		} else {
			put6 = append(put6, newSlot6(p, rule))
		}
	}
	var gone4 []slot4
	var gone6 []slot6
	for _, p := range removes {
		if p.Addr().Is4() {
			gone4 = append(gone4, newSlot4(p, 0))
		} else {
			gone6 = append(gone6, newSlot6(p, 0))
		}
	}
	m.v4 = merge(m.v4, put4, gone4, compare4)
	m.v6 = merge(m.v6, put6, gone6, compare6)
}

// merge returns have with put in it and without gone. The result is a new slice:
// who reads the old one is not disturbed.
func merge[S any](have, put, gone []S, compare func(a, b S) int) []S {
	if len(put)+len(gone) == 0 {
		return have
	}
	slices.SortFunc(put, compare)
	slices.SortFunc(gone, compare)
	out := make([]S, 0, len(have)+len(put))
	for len(put)+len(gone) > 0 {
		isPut := len(gone) == 0 || len(put) > 0 && compare(put[0], gone[0]) < 0
		from := &gone
		if isPut {
			from = &put
		}
		next := (*from)[0]
		*from = (*from)[1:]
		at, found := slices.BinarySearchFunc(have, next, compare)
		out, have = append(out, have[:at]...), have[at:]
		if isPut {
			out = append(out, next)
		}
		if found {
			have = have[1:]
		}
	}
	return append(out, have...)
}
