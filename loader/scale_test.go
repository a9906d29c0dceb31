package loader_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// manyPrefixes is a policy of n allow entries of mixed lengths, a quarter IPv6,
// each with an entry of its own.
func manyPrefixes(n int) rule.Policy {
	r := rand.New(rand.NewPCG(7, 7))
	prefixes := make(map[netip.Prefix]uint64, n)
	for len(prefixes) < n {
		var p netip.Prefix
		if r.IntN(4) > 0 {
			a := r.Uint32()
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), 16+r.IntN(17))
		} else {
			a := [16]byte{0x20, 0x01, byte(r.IntN(8)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
			p = netip.PrefixFrom(netip.AddrFrom16(a), 32+r.IntN(33))
		}
		prefixes[p.Masked()] = rule.FirstID + uint64(len(prefixes))
	}
	return rule.Policy{
		Ports:      []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 465, Default: rule.Drop}, {Number: 587, Default: rule.Drop}},
		IPv6Prefix: 64,
		Entries: func(yield func(rule.Entry) bool) {
			for _, id := range prefixes {
				if !yield(rule.Entry{ID: id, Verdict: rule.Pass, Limits: rule.Limits{Conns: 50, Interval: 50 * time.Millisecond, Burst: 40}}) {
					return
				}
			}
		},
		Rules: func(yield func(rule.Rule) bool) {
			for p, id := range prefixes {
				if !yield(rule.Rule{Prefix: p, Steps: []rule.Step{{Ports: [8]uint64{id, id, id}}}}) {
					return
				}
			}
		},
	}
}

// addOne is a delta that allows one more prefix.
func addOne(i int) rule.Delta {
	id := uint64(1<<40 + i)
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{240, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	return rule.Delta{
		Entries: []rule.Entry{{ID: id, Verdict: rule.Pass}},
		Set:     []rule.Rule{{Prefix: p, Steps: []rule.Step{{Ports: [8]uint64{id, id, id}}}}},
	}
}

// A policy too large to be indexed at once: the tries answer first, the index
// says the same later, and small changes need no whole sync.
func TestManyPrefixes(t *testing.T) {
	f := open(t)
	pol := manyPrefixes(30_000)
	if _, err := f.Sync(pol); err != nil {
		t.Fatal(err)
	}
	if c, err := f.Sync(pol); err != nil || c != (loader.Change{}) {
		t.Fatalf("the same policy again: %+v, %v", c, err)
	}
	if c, err := f.Update(addOne(1)); err != nil || c.Added != 1 {
		t.Fatalf("one more: %+v, %v", c, err)
	}
	ask := func(src string, want rule.Verdict) {
		t.Helper()
		if a, err := f.Probe(netip.MustParseAddr(src), 25); err != nil || a.Verdict != want {
			t.Errorf("%s: %+v, %v; want %s", src, a, err, want)
		}
	}
	ask("240.0.0.1", rule.Pass)
	ask("240.0.0.2", rule.Drop)
	if ok, err := f.Indexed(); !ok || err != nil {
		t.Fatalf("no index: %v", err)
	}
	ask("240.0.0.1", rule.Pass)
	ask("240.0.0.2", rule.Drop)
	n := 0
	for r := range pol.Rules {
		if n++; n > 2000 {
			break
		}
		ask(r.Prefix.Addr().String(), rule.Pass)
	}
	d := addOne(1)
	if c, err := f.Update(rule.Delta{Remove: []netip.Prefix{d.Set[0].Prefix}, Gone: []uint64{d.Entries[0].ID}}); err != nil || c.Removed != 1 {
		t.Fatalf("one less: %+v, %v", c, err)
	}
	ask("240.0.0.1", rule.Drop)
}

func BenchmarkPolicy(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		pol := manyPrefixes(n)
		b.Run(fmt.Sprintf("prefixes=%d", n), func(b *testing.B) {
			f := open(b)
			step := func(name string, fn func() error) {
				began := time.Now()
				if err := fn(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(began).Microseconds())/1000, name+"-ms")
			}
			for b.Loop() {
				step("load", func() error { _, err := f.Sync(pol); return err })
				step("index", func() error { _, err := f.Indexed(); return err })
				step("verify", func() error { _, err := f.Sync(pol); return err })
				step("add-one", func() error { _, err := f.Update(addOne(1)); return err })
				step("reindex", func() error { _, err := f.Indexed(); return err })
			}
		})
	}
}

// Replace takes a policy's place whole, with its hits, though little differs.
func TestReplaceKeepsHits(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("192.0.2.1:25")
	if !reached(t, e.peer, "192.0.2.2", "192.0.2.1:25") {
		t.Fatal("the allowed source was refused")
	}
	steps := []rule.Step{{Ports: [8]uint64{100, 100, 100}}}
	if _, err := e.filter.Replace(rule.Policy{
		Ports:      []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 465, Default: rule.Drop}, {Number: 587, Default: rule.Drop}},
		IPv6Prefix: 64,
		Entries:    slices.Values([]rule.Entry{{ID: 100, Verdict: rule.Pass}}),
		Rules:      slices.Values([]rule.Rule{{Prefix: netip.MustParsePrefix("192.0.2.2/31"), Steps: steps}}),
	}); err != nil {
		t.Fatal(err)
	}
	if hits, err := e.filter.Hits(); err != nil || hits[100].Count != 1 {
		t.Errorf("hits after the replacement: %+v, %v", hits, err)
	}
	if !reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
		t.Error("the source that the new policy allows was refused")
	}
}
