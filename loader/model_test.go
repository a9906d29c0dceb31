package loader_test

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// model is the filter in plain Go: what bpf/ is held against. It is written
// from docs/datapath.md, for reading and not for speed, and shares no code
// with the loader but its types.
type model struct {
	ports   []rule.Port
	entries map[uint64]rule.Entry
	rules   []rule.Rule
	crowd   crowd
	now     time.Time
}

// The bounds of bpf/parse.h.
const (
	maxTags       = 4
	maxExtensions = 8
)

// seen is what the headers of a frame show.
type seen struct {
	hidden   loader.Reason // set: it may be TCP to any port
	tcp      bool
	src      netip.Addr
	port     uint16
	flags    bool // the flags are in sight
	syn      bool // SYN without ACK
	fragment bool // first of several
	data     bool // more than a header
	length   int  // of the segment, as the IP header says
}

// judge gives the verdict on a frame.
func (m model) judge(frame []byte) loader.Answer {
	s := look(frame)
	if s.hidden != 0 {
		return loader.Answer{Verdict: rule.Drop, Reason: s.hidden, Observed: !m.enforcing()}
	}
	pass := loader.Answer{Verdict: rule.Pass, Reason: loader.NotOurs}
	slot := m.slot(s.port)
	if !s.tcp || slot < 0 {
		return pass
	}
	a := m.judgeSegment(s, slot)
	if a.Verdict == rule.Drop {
		a.Observed = m.ports[slot].Observe
	}
	return a
}

func (m model) judgeSegment(s seen, slot int) loader.Answer {
	switch {
	case !s.flags && s.fragment:
		return loader.Answer{Verdict: rule.Drop, Reason: loader.Fragment}
	case !s.flags:
		return loader.Answer{Verdict: rule.Drop, Reason: loader.Truncated}
	}
	a := m.policy(s.src, slot)
	drop := func(r loader.Reason) loader.Answer {
		return loader.Answer{Verdict: rule.Drop, Reason: r, EntryID: a.EntryID}
	}
	switch {
	case s.syn && a.Verdict == rule.Drop:
		return a
	case s.syn && s.fragment:
		return drop(loader.Fragment)
	case s.syn && s.data:
		return drop(loader.SYNData)
	case s.syn:
		return a
	case a.Verdict == rule.Drop && s.fragment:
		return drop(loader.Fragment)
	case a.Verdict == rule.Drop && m.ports[slot].All:
		return drop(loader.Segment)
	}
	return loader.Answer{Verdict: rule.Pass, Reason: loader.NotOurs}
}

// policy is the longest match and the step of its rule that is due.
func (m model) policy(src netip.Addr, slot int) loader.Answer {
	best := m.crowd.longest(src)
	for _, r := range m.rules {
		if r.Prefix.Contains(src) && (!best.Prefix.IsValid() || r.Prefix.Bits() > best.Prefix.Bits()) {
			best = r
		}
	}
	var id uint64
	for _, s := range best.Steps {
		id = s.Ports[slot]
		if s.Until.IsZero() || m.now.Before(s.Until) {
			break
		}
		id = 0
	}
	verdict, allowed, denied := m.ports[slot].Default, loader.DefaultPass, loader.NoEntry
	if id != 0 {
		verdict, allowed, denied = m.entries[id].Verdict, loader.Allowed, loader.Denied
	}
	if verdict == rule.Pass {
		return loader.Answer{Verdict: rule.Pass, Reason: allowed, EntryID: id}
	}
	return loader.Answer{Verdict: rule.Drop, Reason: denied, EntryID: id}
}

func (m model) slot(port uint16) int {
	for i, p := range m.ports {
		if p.Number == port {
			return i
		}
	}
	return -1
}

func (m model) enforcing() bool {
	for _, p := range m.ports {
		if !p.Observe {
			return true
		}
	}
	return false
}

// look reads the headers of a frame.
func look(frame []byte) seen {
	if len(frame) < 14 {
		return seen{}
	}
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	for tags := 0; kind == 0x8100 || kind == 0x88a8; tags++ {
		if tags == maxTags {
			return seen{hidden: loader.Headers}
		}
		if len(rest) < 4 {
			return seen{}
		}
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch kind {
	case 0x0800:
		return look4(rest)
	case 0x86dd:
		return look6(rest)
	}
	return seen{}
}

func look4(p []byte) seen {
	if len(p) < 20 || p[9] != 6 || p[0]&15 < 5 {
		return seen{}
	}
	frag := binary.BigEndian.Uint16(p[6:])
	if frag&0x1fff != 0 {
		return seen{}
	}
	header := int(p[0]&15) * 4
	s := seen{
		src: netip.AddrFrom4([4]byte(p[12:16])), fragment: frag&0x2000 != 0,
		length: int(binary.BigEndian.Uint16(p[2:])) - header,
	}
	return lookTCP(s, skip(p, header))
}

func look6(p []byte) seen {
	if len(p) < 40 {
		return seen{}
	}
	s := seen{src: netip.AddrFrom16([16]byte(p[8:24])), length: int(binary.BigEndian.Uint16(p[4:]))}
	next, rest := p[6], p[40:]
	for n := 0; ; n++ {
		switch next {
		case 6:
			return lookTCP(s, rest)
		case 0, 43, 44, 51, 60:
		default:
			return seen{}
		}
		if n == maxExtensions {
			return seen{hidden: loader.Headers}
		}
		if len(rest) < 8 {
			return seen{hidden: loader.Truncated}
		}
		size := (int(rest[1]) + 1) * 8
		switch next {
		case 44:
			size = 8
			offset := binary.BigEndian.Uint16(rest[2:])
			if offset&0xfff8 != 0 {
				return seen{}
			}
			s.fragment = s.fragment || offset&1 != 0
		case 51:
			size = (int(rest[1]) + 2) * 4
		}
		s.length -= size
		next, rest = rest[0], skip(rest, size)
	}
}

func lookTCP(s seen, p []byte) seen {
	if len(p) < 4 {
		return seen{hidden: loader.Truncated}
	}
	s.tcp, s.port = true, binary.BigEndian.Uint16(p[2:])
	if len(p) >= 20 {
		s.flags, s.syn = true, p[13]&0x12 == 0x02
		s.data = s.length < 0 || s.length > int(p[12]>>4)*4 // a length that lies is no plain SYN's
	}
	return s
}

func skip(p []byte, n int) []byte { return p[min(n, len(p)):] }
