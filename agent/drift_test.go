package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// Every count is of somebody's sockets, and what is not is named.
func TestDrift(t *testing.T) {
	count := func(entry uint64, source string, open uint64) loader.Source {
		s := loader.Source{EntryID: entry, Open: open}
		if source != "" {
			s.Prefix = netip.MustParsePrefix(source)
		}
		return s
	}
	entries := map[uint64]policy.Entry{
		7: {Prefix: netip.MustParsePrefix("192.0.2.0/24")}, 8: {Prefix: netip.MustParsePrefix("192.0.2.0/28")},
	}
	for name, c := range map[string]struct {
		sockets []string
		counts  []loader.Source
		want    string
	}{
		"nobody":                      {nil, []loader.Source{count(1, "192.0.2.1/32", 0)}, ""},
		"as many":                     {[]string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}, []loader.Source{count(1, "192.0.2.1/32", 2), count(1, "192.0.2.2/32", 1)}, ""},
		"by two entries":              {[]string{"192.0.2.1", "192.0.2.1"}, []loader.Source{count(1, "192.0.2.1/32", 1), count(2, "192.0.2.1/32", 1)}, ""},
		"of one IPv6 source":          {[]string{"2001:db8::1", "2001:db8::2"}, []loader.Source{count(1, "2001:db8::/64", 2)}, ""},
		"a slot that never came back": {[]string{"192.0.2.1"}, []loader.Source{count(1, "192.0.2.1/32", 2)}, "192.0.2.1/32 2/1 "},
		"a socket that is not counted": {[]string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}, []loader.Source{count(1, "192.0.2.2/32", 1)},
			"192.0.2.1/32 0/2 "},
		"one who may not connect":      {[]string{"203.0.113.9"}, nil, ""},
		"shared":                       {[]string{"192.0.2.1", "192.0.2.77"}, []loader.Source{count(7, "", 2)}, ""},
		"shared, one inside the other": {[]string{"192.0.2.1", "192.0.2.77"}, []loader.Source{count(7, "", 1), count(8, "", 1)}, ""},
		"shared, and too many":         {[]string{"192.0.2.1"}, []loader.Source{count(7, "", 3)}, "192.0.2.0/24 2/0 "},
		"shared, of an entry gone":     {[]string{"192.0.2.1"}, []loader.Source{count(9, "", 1)}, ""},
	} {
		var conns []control.Connection
		for _, s := range c.sockets {
			conns = append(conns, control.Connection{
				Source: netip.AddrPortFrom(netip.MustParseAddr(s), 40000), Local: netip.MustParseAddrPort("192.0.2.250:25"),
			})
		}
		cmp := newComparison(64, conns)
		cmp.charge(c.counts, entries)
		got := ""
		for _, d := range cmp.differences(func(s netip.AddrPort) bool { return s.Port() == 25 && s.Addr().String() != "203.0.113.9" }) {
			got += fmt.Sprintf("%s %d/%d ", d.Source, d.Counted, d.Sockets)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
