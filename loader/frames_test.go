package loader_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// frames makes random frames: valid, odd, lying and cut. Addresses come from a
// small pool, so that they meet the policies' prefixes, and from near a crowd's.
type frames struct {
	*rand.Rand
	near []netip.Addr
}

// nearby is one of the addresses near a crowd's prefixes, of either family.
func (r frames) nearby() (a netip.Addr) {
	if len(r.near) > 0 && r.IntN(2) == 0 {
		a = r.near[r.IntN(len(r.near))]
	}
	return a
}

func (r frames) addr4() netip.Addr {
	if a := r.nearby(); a.Is4() {
		return a
	}
	return netip.AddrFrom4([4]byte{[]byte{10, 192, 203}[r.IntN(3)], byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(8))})
}

func (r frames) addr6() netip.Addr {
	if a := r.nearby(); a.Is6() {
		return a
	}
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(r.IntN(2))}
	a[7], a[8], a[15] = byte(r.IntN(4)), byte(r.IntN(2)), byte(r.IntN(4))
	if r.IntN(16) == 0 { // mapped: must never meet an IPv4 entry
		b := r.addr4().As4()
		a = [16]byte{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
	}
	return netip.AddrFrom16(a)
}

func (r frames) pick(v ...uint16) uint16 { return v[r.IntN(len(v))] }

// frame is one random frame, at least the 14 bytes that a test run takes.
func (r frames) frame() []byte {
	if r.IntN(8) == 0 { // what the filter knows at a glance, also from far away
		src := r.addr4()
		if r.IntN(4) == 0 {
			src = netip.AddrFrom4([4]byte(r.bytes(4)))
		}
		return loader.SYN(src, r.pick(25, 25, 465, 587, 80))
	}
	f := make([]byte, 12, 256)
	for range r.pick(0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5) {
		f = binary.BigEndian.AppendUint16(f, r.pick(0x8100, 0x88a8))
		f = append(f, byte(r.IntN(2)), byte(r.IntN(3)))
	}
	switch r.IntN(20) {
	case 0:
		f = binary.BigEndian.AppendUint16(f, r.pick(0x0806, 0x88cc, 0x8847, 0x0800))
		f = append(f, r.bytes(r.IntN(80))...)
	case 1, 2, 3, 4, 5, 6, 7, 8:
		f = r.ipv6(f)
	default:
		f = r.ipv4(f)
	}
	return r.spoil(f)
}

// spoil cuts some frames, and flips a byte in some.
func (r frames) spoil(f []byte) []byte {
	if r.IntN(6) == 0 {
		f = f[:max(14, r.IntN(len(f)+1))]
	}
	if r.IntN(6) == 0 {
		f[r.IntN(len(f))] ^= byte(1 << r.IntN(8))
	}
	for len(f) < 14 {
		f = append(f, 0)
	}
	return f
}

func (r frames) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r frames) ipv4(f []byte) []byte {
	f = binary.BigEndian.AppendUint16(f, 0x0800)
	options := r.pick(0, 0, 0, 0, 4, 8, 40)
	ip := make([]byte, 20, 60)
	ip[0] = 0x40 | byte(5+options/4)
	ip[8], ip[9] = 64, byte(r.pick(6, 6, 6, 6, 6, 6, 17, 1))
	binary.BigEndian.PutUint16(ip[6:], r.pick(0, 0, 0, 0x4000, 0x8000, 0x2000, 0x2001, 0x0001, 0x0002, 0x1fff))
	src := r.addr4().As4()
	copy(ip[12:], src[:])
	ip = append(ip, r.bytes(int(options))...)
	l4 := r.tcp()
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(l4)))
	return append(append(f, ip...), l4...)
}

func (r frames) ipv6(f []byte) []byte {
	f = binary.BigEndian.AppendUint16(f, 0x86dd)
	ip := make([]byte, 40, 256)
	ip[0], ip[7] = 0x60, 64
	src := r.addr6().As16()
	copy(ip[8:], src[:])
	last := &ip[6]
	var chain [][]byte
	for range r.pick(0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 7, 8, 9) {
		next := byte(r.pick(0, 43, 44, 51, 60))
		*last = next
		ext := r.extension(next)
		chain = append(chain, ext)
		last = &ext[0]
	}
	*last = byte(r.pick(6, 6, 6, 6, 6, 6, 17, 58, 59, 50))
	for _, ext := range chain {
		ip = append(ip, ext...)
	}
	ip = append(ip, r.tcp()...)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	return append(f, ip...)
}

func (r frames) extension(kind byte) []byte {
	units := r.IntN(3)
	ext := r.bytes(8 * (units + 1))
	ext[1] = byte(units)
	switch kind {
	case 44:
		ext = ext[:8]
		binary.BigEndian.PutUint16(ext[2:], r.pick(0, 0, 0, 1, 6, 8, 9, 0xfff8))
	case 51:
		ext[1] = byte(2*(units+1) - 2)
	}
	return ext
}

func (r frames) tcp() []byte {
	p := r.bytes(20 + int(r.pick(0, 0, 0, 4, 24)))
	binary.BigEndian.PutUint16(p[2:], r.pick(25, 25, 25, 465, 465, 587, 587, 587, 80, 0))
	p[12] = 5 << 4
	p[13] = byte(r.pick(0x02, 0x02, 0x02, 0xc2, 0x12, 0x10, 0x18, 0x04, 0x01, 0x03, 0x06, 0x0a, 0x22, 0x00, 0xff))
	return p
}

// glimpse says what bpf/glance.h makes of a frame while the index answers; empty
// for what it leaves to the parser.
func (m model) glimpse(f []byte) string {
	if len(f) < 54 || f[12] != 8 || f[13] != 0 || f[14] != 0x45 || f[23] != 6 || binary.BigEndian.Uint16(f[20:])&0x3fff != 0 {
		return ""
	}
	s := look(f)
	slot := m.slot(s.port)
	if slot < 0 {
		return "another port"
	}
	p := m.ports[slot]
	switch {
	case !s.syn:
		return "no SYN"
	case p.Observe:
		return "a port that observes"
	case p.Reset:
		return "a port that resets"
	case p.Default == rule.Pass:
		return "a port that passes"
	case m.policy(s.src, slot).EntryID != 0:
		return "a partner or who is denied"
	case m.touched(s.src):
		return "a partner's neighbour"
	}
	return "a stranger"
}

// touched says whether any prefix has addresses in a source's /16.
func (m model) touched(a netip.Addr) bool {
	around, _ := a.Prefix(16)
	for r := range m.all() {
		if r.Prefix.Overlaps(around) {
			return true
		}
	}
	return false
}
