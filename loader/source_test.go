package loader_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// An IPv6 source is its prefix of ipv6_prefix bits, not its address: the addresses
// of one share a cap, the one next to it has a cap of its own.
func TestIPv6SourceIsItsPrefix(t *testing.T) {
	t.Parallel()
	const limit = 4
	for bits, c := range map[int]struct{ one, too, other string }{
		48:  {"2001:db8:1::2", "2001:db8:1:ffff::2", "2001:db8:2::2"},
		57:  {"2001:db8:1::2", "2001:db8:1:7f::2", "2001:db8:1:80::2"},
		64:  {"2001:db8:1::2", "2001:db8:1:0:ffff::2", "2001:db8:1:1::2"},
		128: {"2001:db8:1::2", "2001:db8:1::2", "2001:db8:1::3"},
	} {
		t.Run(fmt.Sprintf("/%d", bits), func(t *testing.T) {
			t.Parallel()
			e := bareEdge(t)
			e.peer.PassAll("eth0")
			e.Address("eth0", "2001:db8:ffff::1/32") // all are its neighbours
			addrs := []string{c.one, c.too, c.other}
			for _, a := range slices.Compact(slices.Sorted(slices.Values(addrs))) {
				e.peer.Address("eth0", a+"/32")
			}
			e.syncIPv6(t, bits, rule.Limits{Conns: limit})
			e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
			serve(e.Host, t, "[2001:db8::1]:25")
			one := len(e.burst(t, c.one, limit-1))
			too := len(e.burst(t, c.too, limit))
			other := len(e.burst(t, c.other, 2*limit))
			if one != limit-1 || too != 1 || other != limit {
				t.Errorf("%s has %d connections, %s of the same /%d has %d, %s of another has %d; the cap is %d",
					c.one, one, c.too, bits, too, c.other, other, limit)
			}
		})
	}
}

// syncIPv6 allows 2001:db8::/32, where sources are as many bits long.
func (e *edge) syncIPv6(t *testing.T, bits int, limits rule.Limits) {
	t.Helper()
	if _, err := e.filter.Sync(rule.Policy{
		Ports: []rule.Port{{Number: 25, Default: rule.Drop}}, IPv6Prefix: bits,
		Entries: slices.Values([]rule.Entry{{ID: 100, Verdict: rule.Pass, Limits: limits}}),
		Rules: slices.Values([]rule.Rule{
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Steps: []rule.Step{{Ports: [8]uint64{100}}}},
		}),
	}); err != nil {
		t.Fatal(err)
	}
}
