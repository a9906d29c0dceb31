package loader_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// crowd is a policy's many prefixes, which only the index's size asks for. The
// longest of them that holds an address is looked for length by length.
type crowd map[netip.Prefix][]rule.Step

// How many make the index what it is: see newBitmap and pages in loader/index.go.
const (
	perPage   = 512       // ranges
	fineFrom  = 1<<11 + 1 // prefixes from which a bit of the bitmap is less than a /16
	finest    = 1 << 18   // from which it is a /24
	crowdEnds = 400       // addresses at their ends that frames come from
)

func (c crowd) longest(a netip.Addr) (best rule.Rule) {
	for bits := a.BitLen(); bits >= 0 && len(c) > 0; bits-- {
		p, _ := a.Prefix(bits)
		if steps, ok := c[p]; ok {
			return rule.Rule{Prefix: p, Steps: steps}
		}
	}
	return rule.Rule{}
}

func (c crowd) rules() iter.Seq[rule.Rule] {
	return func(yield func(rule.Rule) bool) {
		for p, steps := range c {
			if !yield(rule.Rule{Prefix: p, Steps: steps}) {
				return
			}
		}
	}
}

// gather makes a crowd of n prefixes of the lengths given, and has frames come
// from its ends.
func (r *frames) gather(m *model, n int, from func() netip.Addr, lengths ...int) {
	steps := make([][]rule.Step, 16)
	for i := range steps {
		steps[i] = randomSteps(*r, *m)
	}
	has := map[netip.Prefix]bool{}
	for _, x := range m.rules {
		has[x.Prefix] = true
	}
	for have, tries := len(m.crowd), 0; len(m.crowd) < have+n && tries < 4*n; tries++ {
		p, _ := from().Prefix(lengths[r.IntN(len(lengths))])
		if has[p] || m.crowd[p] != nil {
			continue
		}
		m.crowd[p] = steps[r.IntN(len(steps))]
		if len(m.crowd)%max(1, n/crowdEnds) == 0 {
			last := lastOf(p)
			r.near = append(r.near, p.Addr(), last, beside(p.Addr(), -1), beside(last, 1))
		}
	}
}

// lastOf is a prefix's last address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// beside is the address before or after, or itself at either end of all.
func beside(a netip.Addr, step int) netip.Addr {
	b := a.Next()
	if step < 0 {
		b = a.Prev()
	}
	if !b.IsValid() {
		return a
	}
	return b
}

// within makes random addresses that begin as the given one does.
func (r *frames) within(addr string, bits int) func() netip.Addr {
	a := netip.MustParseAddr(addr).AsSlice()
	return func() netip.Addr {
		b := r.bytes(len(a))
		for i := range bits {
			mask := byte(0x80 >> (i % 8))
			b[i/8] = b[i/8]&^mask | a[i/8]&mask
		}
		out, _ := netip.AddrFromSlice(b)
		return out
	}
}

// crowded adds to a policy what gives its index several pages for one chunk, or
// a finer bitmap.
func (r *frames) crowded(m *model, kind int) {
	m.rules = slices.DeleteFunc(m.rules, func(x rule.Rule) bool { // which leave IPv6 to the trie
		return x.Prefix.Addr().Is6() && x.Prefix.Bits() < 12
	})
	switch kind {
	case crowdPages4:
		r.gather(m, 2*perPage+r.IntN(1500), r.within("10.0.0.0", 16), 25, 28, 30, 31, 32, 32)
	case crowdPages6:
		r.gather(m, 2*perPage+r.IntN(1500), r.within("2001:db8::", 32), 48, 56, 60, 63, 64, 64, 72)
	case crowdFine:
		r.gather(m, fineFrom+r.IntN(4000), r.within("0.0.0.0", 0), 15, 16, 17, 20, 24, 28, 32)
		r.gather(m, 1, r.within("2000::", 8), 14+r.IntN(8)) // touches up to 2^18 /32s
		r.gather(m, fineFrom, r.within("2000::", 8), 32, 40, 48, 64, 64, 64)
	case crowdFinest:
		r.gather(m, finest, r.within("0.0.0.0", 0), 20, 24, 28, 31, 32, 32, 32)
		r.gather(m, 1, r.within("2000::", 8), 14)
	}
}

// Kinds of crowds. Others are none.
const (
	crowdPages4 = iota
	crowdPages6
	crowdFine
	someCrowds  = 12         // of so many kinds, most are none
	crowdFinest = someCrowds // takes seconds to load
)

// fewRounds is how many an emulated machine has time for: none of them is the finest.
const fewRounds = 20

// roundsKind has the first rounds meet each kind, and the others some.
func (r *frames) roundsKind(round int) int {
	switch {
	case round%1000 == fewRounds:
		return crowdFinest
	case round < 3:
		return round
	}
	return r.IntN(someCrowds)
}

// indexSeen says what the indexes were like that frames have met.
type indexSeen map[string]int

// look takes down the index in force.
func (s indexSeen) look(t *testing.T, f *loader.Filter) {
	t.Helper()
	if ok, err := f.Indexed(); !ok || err != nil {
		t.Fatalf("the index does not answer: %v", err)
	}
	var state [4]uint32
	lookup(t, f, "states", uint32(0), &state)
	current := state[1]
	index := current>>1&0x7f - 1
	s[fmt.Sprintf("IPv4 grain /%d", 32-current>>8&0x1f)]++
	var chunk struct{ First, Count uint32 }
	lookup(t, f, "chunks4", index<<16|10<<8, &chunk) // of 10.0.0.0/16
	if chunk.Count > perPage {
		s["IPv4 pages"]++
	}
	var head struct{ V6, Mask uint32 }
	if lookup(t, f, "indexes", index, &head); head.V6 == 0 {
		return
	}
	s[fmt.Sprintf("IPv6 grain /%d", 32-current>>16&0x1f)]++
	if ranges6(t, f, index, head.Mask, netip.MustParseAddr("2001:db8::")) > perPage {
		s["IPv6 pages"]++
	}
}

// ranges6 is how many ranges an IPv6 address's /32 has in the index.
func ranges6(t *testing.T, f *loader.Filter, index, mask uint32, a netip.Addr) uint32 {
	t.Helper()
	b := a.As16()
	head := binary.NativeEndian.Uint32(b[:])
	var at struct{ Key, Used, First, Count uint32 }
	for i := range uint32(8) {
		lookup(t, f, fmt.Sprintf("chunks6-%d", index), (head*0x9e3779b1+i)&mask, &at)
		if at.Used != 0 && at.Key == head {
			return at.Count
		}
	}
	return 0
}

// lookup reads a value of a pinned map.
func lookup(t *testing.T, f *loader.Filter, name string, key uint32, value any) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(f.Dir(), "filter", name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Lookup(key, value); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}
