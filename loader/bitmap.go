package loader

import "math/bits"

// bitmap has a bit for each stretch of 2^grain of 2^32 addresses, or hashes: is
// any of them touched?
type bitmap struct {
	words []uint64
	grain uint32
}

// newBitmap makes one of which so many bits, or hardly more, will be set: as coarse
// as leaves most of it unset, since a small one is a fast one.
func newBitmap(marks int) bitmap {
	grain := 32 - min(24, max(16, bits.Len(uint(32*marks))))
	return bitmap{words: make([]uint64, 1<<(32-grain)/64), grain: uint32(grain)}
}

// mark sets the bits of all from first to last.
func (b bitmap) mark(first, last uint64) {
	first, last = first>>b.grain, last>>b.grain
	for w := first >> 6; w <= last>>6; w++ {
		mask := ^uint64(0)
		if w == first>>6 {
			mask <<= first & 63
		}
		if w == last>>6 {
			mask &= ^uint64(0) >> (63 - last&63)
		}
		b.words[w] |= mask
	}
}
