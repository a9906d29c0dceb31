package names

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/synward/synward/agent/policy"
)

// minus, address by address, over a small space.
func TestMinusIsSetDifference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	prefixes := func(n int) (s space) {
		for range n {
			s = append(s, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rnd.IntN(256))}), 24+rnd.IntN(9)).Masked())
		}
		return s
	}
	has := func(s space, a netip.Addr) bool {
		return slices.ContainsFunc(s, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for round := range 300 {
		from, holes := prefixes(1+rnd.IntN(5)), prefixes(rnd.IntN(6))
		left := from.minus(holes)
		small := policy.Compact(slices.Clone(left))
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			want := has(from, a) && !has(holes, a)
			if has(left, a) != want || has(small, a) != want {
				t.Fatalf("round %d: %v minus %v: %v, compact %v; wrong about %v", round, from, holes, left, small, a)
			}
		}
		for i, p := range small {
			if i > 0 && p.Overlaps(small[i-1]) {
				t.Fatalf("round %d: %v holds one inside another", round, small)
			}
		}
	}
	six := space{netip.MustParsePrefix("::/0")}.minus(space{netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("0.0.0.0/0")})
	if len(six) != 128 || has(six, netip.MustParseAddr("2001:db8::1")) || !has(six, netip.MustParseAddr("2001:db8::")) {
		t.Errorf("all of IPv6 without one address is %d prefixes", len(six))
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"v=spf1 ip4:192.0.2.0/24 a:x.example/24//64 mx include:%{d}.example -all", "v=spf1 redirect=a.example exp=b", "v=spf1 a//", "v=spf1 +", "v=spf1 a:%{ir/}.x/24",
		"v=spf1 ip6:::/0 ?exists:a ~ptr", "v=spf1 -", "v=spf1 a/", "v=spf1 mx:/24",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rec, err := parseRecord(s)
		if err != nil {
			return
		}
		for _, term := range rec.terms {
			if !slices.Contains(strings.Fields(s), term.text) {
				t.Errorf("%q is not in %q", term.text, s)
			}
			if (term.kind == "ip4" || term.kind == "ip6") && (!term.prefix.IsValid() || term.prefix != term.prefix.Masked()) {
				t.Errorf("%q gives %v", term.text, term.prefix)
			}
			if term.bits4 < 0 || term.bits4 > 32 || term.bits6 < 0 || term.bits6 > 128 {
				t.Errorf("%q: bits %d and %d", term.text, term.bits4, term.bits6)
			}
			if (term.kind == "include" || term.kind == "exists") && term.domain == "" {
				t.Errorf("%q has no domain", term.text)
			}
		}
	})
}
