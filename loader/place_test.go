package loader

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// An IPv6 policy is of /32s that begin alike, as registries give them out: the
// index has a place for nearly all of them, and the tries need not be asked.
func TestChunksFindTheirPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		seen := map[uint64]bool{}
		for len(seen) < n {
			seen[0x2a00<<48|uint64(r.IntN(1<<20))<<32] = true
		}
		var prefixes []slot6
		for hi := range seen {
			prefixes = append(prefixes, slot6{hi: hi, bits: 48, rule: 1})
		}
		slices.SortFunc(prefixes, compare6)
		x := &image{}
		x.build6(prefixes)
		if x.left*1000 > n {
			t.Errorf("of %d chunks %d found no place", n, x.left)
		}
	}
}
