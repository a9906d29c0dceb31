package loader

import (
	"encoding/binary"
	"slices"
	"sync"
)

// image is an index before it is copied to the kernel: see bpf/index.h.
type image struct {
	touched4, touched6 bitmap
	chunks4            []filterChunk
	pages4, pages6     pages
	chunks6            []filterChunk6
	v6                 bool // the IPv6 tables may be asked
	left               int  // chunks that found no place in theirs
}

// Sizes of bpf/maps.h, and the marks of bpf/abi.h.
const (
	chunks4     = 1 << 16
	chunkProbes = 8
	askTrie     = 0xffffffff
	pageRanges  = 512
	// widest6 is the shortest IPv6 prefix whose /32s are marked one by one.
	widest6 = 12
)

// span is where what a prefix says begins to hold, in the order of addresses.
type span struct {
	from uint64
	rule uint32
}

// pages are the ranges of all chunks. A chunk's stand in one page, or begin one.
type pages struct {
	list []filterPage
	next int // free place, counted over all pages
}

// expect makes room for so many ranges: growing would move megabytes.
func (p *pages) expect(ranges int) {
	p.list = make([]filterPage, 0, ranges/pageRanges*5/4+1)
}

// add takes up one chunk's spans and says where they stand.
func (p *pages) add(start uint64, spans []span) filterChunk {
	if p.next%pageRanges+len(spans) > pageRanges {
		p.next = len(p.list) * pageRanges
	}
	c := filterChunk{First: uint32(p.next), Count: uint32(len(spans))}
	for _, s := range spans {
		if p.next == len(p.list)*pageRanges {
			p.list = append(p.list, filterPage{})
		}
		page, at := &p.list[p.next/pageRanges], p.next%pageRanges
		page.From[at], page.Says[at] = uint32(max(s.from, start)-start), s.rule
		p.next++
	}
	return c
}

// append puts another's pages behind these, and moves its chunks there.
func (p *pages) append(other pages, chunks []filterChunk) {
	behind := len(p.list) * pageRanges
	for i := range chunks {
		if chunks[i].Count > 0 {
			chunks[i].First += uint32(behind)
		}
	}
	p.list, p.next = append(p.list, other.list...), behind+other.next
}

// buildIndex compiles what the tries hold.
func buildIndex(m mirror) *image {
	x := &image{chunks4: make([]filterChunk, chunks4)}
	var ready sync.WaitGroup
	ready.Go(func() { x.build6(m.v6) })
	x.build4(m.v4)
	ready.Wait()
	return x
}

// held is a prefix: its first and last address, and what it says.
type held struct {
	first, last uint64
	rule        uint32
}

// flatten turns n nested prefixes, sorted, into spans that do not overlap. Around
// them all, around is said.
func flatten(n int, around uint32, at func(int) held) []span {
	spans := append(make([]span, 0, 2*n+1), span{0, around})
	var stack []held
	add := func(from uint64, rule uint32) {
		switch top := &spans[len(spans)-1]; {
		case top.from == from:
			top.rule = rule
		case top.rule != rule:
			spans = append(spans, span{from, rule})
		}
	}
	end := func() { // of the innermost prefix that is open
		last := stack[len(stack)-1].last
		stack = stack[:len(stack)-1]
		outer := around
		if len(stack) > 0 {
			outer = stack[len(stack)-1].rule
		}
		if last != ^uint64(0) {
			add(last+1, outer)
		}
	}
	for i := range n {
		p := at(i)
		for len(stack) > 0 && stack[len(stack)-1].last < p.first {
			end()
		}
		add(p.first, p.rule)
		stack = append(stack, p)
	}
	for len(stack) > 0 {
		end()
	}
	return spans
}

// build4 works on both halves of the addresses at once: a change of a large policy
// waits for it.
func (x *image) build4(prefixes []slot4) {
	x.touched4 = newBitmap(len(prefixes))
	around := uint32(0)
	if len(prefixes) > 0 && prefixes[0].bits == 0 {
		x.touched4.mark(0, prefixes[0].end())
		around, prefixes = prefixes[0].rule, prefixes[1:]
	}
	middle, _ := slices.BinarySearchFunc(prefixes, slot4{addr: 1 << 31}, compare4)
	var upper pages
	var ready sync.WaitGroup
	ready.Go(func() { x.buildHalf4(prefixes[middle:], around, chunks4/2, &upper) })
	x.buildHalf4(prefixes[:middle], around, 0, &x.pages4)
	ready.Wait()
	x.pages4.append(upper, x.chunks4[chunks4/2:])
}

// buildHalf4 makes half of the chunks, from the first one on.
func (x *image) buildHalf4(prefixes []slot4, around uint32, first int, p *pages) {
	for _, s := range prefixes {
		x.touched4.mark(uint64(s.addr), s.end())
	}
	spans := flatten(len(prefixes), around, func(i int) held {
		s := prefixes[i]
		return held{uint64(s.addr), s.end(), s.rule}
	})
	p.expect(len(spans))
	i := 0
	for c := first; c < first+chunks4/2; c++ {
		x.chunks4[c], i = cut(p, spans, i, uint64(c)<<16, 16)
	}
}

// end is the prefix's last address.
func (s slot4) end() uint64 { return uint64(s.addr) | (1<<32-1)>>s.bits }

// cut makes the chunk of 2^size addresses from start on. i is the span that
// holds where the chunk before ended; the span for the next one is returned.
func cut(p *pages, spans []span, i int, start uint64, size uint) (filterChunk, int) {
	for i+1 < len(spans) && spans[i+1].from <= start {
		i++
	}
	last := start | (1<<size - 1)
	if i+1 == len(spans) || spans[i+1].from > last {
		return filterChunk{First: spans[i].rule}, i
	}
	first := i
	for i+1 < len(spans) && spans[i+1].from <= last {
		i++
	}
	return p.add(start, spans[first:i+1]), i
}

// build6 sees the upper 64 bits of an address. A /64 with longer prefixes in it
// is the trie's; so is a policy with prefixes too wide to be marked.
func (x *image) build6(prefixes []slot6) {
	for _, s := range prefixes {
		if s.bits < widest6 {
			return
		}
	}
	short := shorten(prefixes)
	marks := 0
	for _, s := range short {
		marks += int(s.end()>>32 - s.hi>>32 + 1)
	}
	x.touched6 = newBitmap(marks)
	var heads []uint32
	for _, s := range short {
		first := s.hi >> 32
		for head := first; head <= s.end()>>32; head++ {
			h := uint64(hash32(uint32(head)))
			x.touched6.mark(h, h)
		}
		if s.bits >= 32 && (len(heads) == 0 || heads[len(heads)-1] != uint32(first)) {
			heads = append(heads, uint32(first))
		}
	}
	spans := flatten(len(short), 0, func(i int) held {
		return held{short[i].hi, short[i].end(), short[i].rule}
	})
	x.chunks6 = make([]filterChunk6, tableSize(len(heads)))
	x.pages6.expect(len(spans))
	i := 0
	for _, head := range heads {
		var c filterChunk
		c, i = cut(&x.pages6, spans, i, uint64(head)<<32, 32)
		x.place6(head, c)
	}
	x.v6 = true
}

// shorten has a /64 in the place of all that are longer.
func shorten(prefixes []slot6) []slot6 {
	if !slices.ContainsFunc(prefixes, func(s slot6) bool { return s.bits > 64 }) {
		return prefixes
	}
	short := slices.Clone(prefixes)
	for i, s := range short {
		if s.bits > 64 {
			short[i] = slot6{hi: s.hi, bits: 64, rule: askTrie}
		}
	}
	slices.SortStableFunc(short, compare6) // longer than /64 came after its /64, if there is one
	return lastOfEach(short)
}

// end is the last value of the upper half of an address in the prefix.
func (s slot6) end() uint64 { return s.hi | ^uint64(0)>>s.bits }

// lastOfEach keeps of equal prefixes the last.
func lastOfEach(s []slot6) []slot6 {
	out := s[:0]
	for i, p := range s {
		if i+1 == len(s) || s[i+1].hi != p.hi || s[i+1].bits != p.bits {
			out = append(out, p)
		}
	}
	return out
}

// tableSize is a power of two that leaves three places of four empty.
func tableSize(n int) int {
	size := 16
	for size < 4*n {
		size *= 2
	}
	return size
}

// place6 puts a chunk into the hash table. One that finds no place near its own
// is left out: the trie answers for it.
func (x *image) place6(head uint32, c filterChunk) {
	mask := uint32(len(x.chunks6) - 1)
	for i := range uint32(chunkProbes) {
		at := &x.chunks6[(place32(hash32(head))+i)&mask]
		if at.Used == 0 {
			at.Key, at.Used, at.Chunk.First, at.Chunk.Count = netOrder(head), 1, c.First, c.Count
			return
		}
	}
	x.left++
}

// netOrder is a word as the packet holds it.
func netOrder(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

// hash32 and place32 are those of bpf/index.h, of the word in network order.
func hash32(head uint32) uint32 { return netOrder(head) * 0x9e3779b1 }

func place32(hash uint32) uint32 {
	hash = (hash ^ hash>>15) * 0x85ebca6b
	return hash ^ hash>>13
}
