package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader/rule"
)

// parse reads entries with their origins; a test's policy is best read as text.
func parse(t *testing.T, text string) []policy.Entry {
	t.Helper()
	entries, _, err := policy.Parse(strings.NewReader(text), policy.ParseOptions{Name: "test", Now: start, Origins: true})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name    string
		text    string
		addr    string // 192.0.2.1 where empty
		port    uint16 // 25 where 0
		verdict rule.Verdict
		chain   []string // "prefix: why", where * marks what decides
	}{
		{"nothing covers: default drop", "allow 10.0.0.0/8 origin=operator", "", 25, rule.Drop, nil},
		{"nothing covers: default pass", "", "", 465, rule.Pass, nil},
		{"longest prefix wins, not the first", `
			allow 192.0.2.0/24 origin=operator
			deny 192.0.2.0/28 origin=operator`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.0/28: decides", "allow 192.0.2.0/24: a longer prefix comes first: deny 192.0.2.0/28"}},
		{"a file's longer prefix beats an operator's", `
			allow 192.0.2.0/24 origin=operator
			deny 192.0.2.0/28 origin=file`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.0/28: decides", "allow 192.0.2.0/24: a longer prefix comes first: deny 192.0.2.0/28"}},
		{"on one prefix the operator beats the file", `
			deny 192.0.2.0/24 origin=file
			allow 192.0.2.0/24 origin=operator`, "", 25, rule.Pass,
			[]string{"*allow 192.0.2.0/24: decides", "deny 192.0.2.0/24: on the same prefix an entry of origin operator comes before one of file: allow 192.0.2.0/24"}},
		{"a learned allow is the operator's own, and the last of them", `
			deny 192.0.2.1 origin=feed:spam
			allow 192.0.2.1 origin=learned
			deny 192.0.2.1 587 origin=file`, "", 25, rule.Pass,
			[]string{"deny 192.0.2.1/32: says nothing about port 25", "*allow 192.0.2.1/32: decides",
				"deny 192.0.2.1/32: an entry of the operator covers the source: allow 192.0.2.1/32"}},
		{"a learned deny beats a learned allow", `
			allow 192.0.2.1 origin=learned
			deny 192.0.2.0/24 origin=learned`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.0/24: decides", "allow 192.0.2.1/32: a learned deny comes before an allow: deny 192.0.2.0/24"}},
		{"on one prefix deny beats allow", `
			allow 192.0.2.0/24 origin=operator
			deny 192.0.2.0/24 origin=operator`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.0/24: decides", "allow 192.0.2.0/24: on the same prefix deny comes before allow: deny 192.0.2.0/24"}},
		{"an operator's /24 beats a feed's /32", `
			allow 192.0.2.0/24 origin=operator
			deny 192.0.2.1 origin=feed:spam`, "", 25, rule.Pass,
			[]string{"*allow 192.0.2.0/24: decides", "deny 192.0.2.1/32: an entry of the operator covers the source: allow 192.0.2.0/24"}},
		{"an operator's entry for another port leaves the feed's", `
			allow 192.0.2.0/24 587 origin=operator
			deny 192.0.2.1 origin=feed:spam`, "", 465, rule.Drop,
			[]string{"allow 192.0.2.0/24: says nothing about port 465", "*deny 192.0.2.1/32: decides"}},
		{"two feeds on one prefix", `
			deny 192.0.2.1 origin=feed:b
			deny 192.0.2.1 origin=feed:a`, "", 465, rule.Drop,
			[]string{"*deny 192.0.2.1/32: decides", "deny 192.0.2.1/32: on the same prefix the first by name is taken: deny 192.0.2.1/32"}},
		{"a learned deny beats a longer allow", `
			allow 192.0.2.1 origin=operator
			deny 192.0.2.0/24 origin=learned`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.0/24: decides", "allow 192.0.2.1/32: a learned deny comes before an allow: deny 192.0.2.0/24"}},
		{"but not an immune one", `
			allow 192.0.2.0/24 immune=yes origin=operator
			deny 192.0.2.1 origin=learned`, "", 25, rule.Pass,
			[]string{"deny 192.0.2.1/32: the allow is immune: allow 192.0.2.0/24", "*allow 192.0.2.0/24: decides"}},
		{"only the allow that decides is asked", `
			allow 192.0.2.0/24 immune=yes origin=operator
			allow 192.0.2.0/28 origin=operator
			deny 192.0.2.1 origin=learned`, "", 25, rule.Drop,
			[]string{"*deny 192.0.2.1/32: decides", "allow 192.0.2.0/28: a learned deny comes before an allow: deny 192.0.2.1/32",
				"allow 192.0.2.0/24: a longer prefix comes first: allow 192.0.2.0/28"}},
		{"a learned deny beats a default of pass", "deny 192.0.2.1 origin=learned", "", 465, rule.Drop,
			[]string{"*deny 192.0.2.1/32: decides"}},
		{"beside an operator's deny it decides nothing", `
			deny 192.0.2.0/24 origin=operator
			deny 192.0.2.1 origin=learned`, "", 465, rule.Drop,
			[]string{"deny 192.0.2.1/32: denied anyway: deny 192.0.2.0/24", "*deny 192.0.2.0/24: decides"}},
		{"expired is as if not there", `
			deny 192.0.2.1 expires=2026-07-01T12:00:00Z origin=operator
			allow 192.0.2.0/24 expires=2026-07-01T12:00:01Z origin=operator`, "", 25, rule.Pass,
			[]string{"deny 192.0.2.1/32: expired at 2026-07-01T12:00:00Z", "*allow 192.0.2.0/24: decides"}},
		{"families never meet", "allow ::/0 origin=operator\nallow 2001:db8::/32 origin=operator", "", 25, rule.Drop, nil},
		{"a mapped address is IPv6", "allow 192.0.2.0/24 origin=operator", "::ffff:192.0.2.1", 25, rule.Drop, nil},
		{"IPv6", "allow 2001:db8::/32 587 origin=operator", "2001:db8::1", 587, rule.Pass,
			[]string{"*allow 2001:db8::/32: decides"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			addr := netip.MustParseAddr("192.0.2.1")
			if test.addr != "" {
				addr = netip.MustParseAddr(test.addr)
			}
			var port rule.Port
			for _, p := range ports {
				if p.Number == test.port {
					port = p
				}
			}
			d := policy.NewSet(parse(t, test.text)...).Decide(start, addr, port)
			var chain []string
			for _, c := range d.Chain {
				mark := ""
				if c.Decides {
					mark = "*"
				}
				chain = append(chain, mark+string(c.Entry.Action)+" "+c.Entry.Prefix.String()+": "+c.Why)
			}
			if d.Verdict != test.verdict || strings.Join(chain, "\n") != strings.Join(test.chain, "\n") {
				t.Errorf("%s, chain:\n%s\nwant %s, chain:\n%s", d.Verdict, strings.Join(chain, "\n"), test.verdict, strings.Join(test.chain, "\n"))
			}
			if (d.Entry != nil) != strings.Contains(strings.Join(chain, "\n"), "*") {
				t.Errorf("entry %v does not agree with the chain", d.Entry)
			}
		})
	}
}

func TestCompileFillsInTheCaps(t *testing.T) {
	set := policy.NewSet(parse(t, `
		allow 192.0.2.1 origin=operator
		allow 192.0.2.2 max-conns=0 rate=0 burst=7 origin=operator
		allow 192.0.2.3 max-conns=3 rate=6/m burst=2 shared=yes relay=yes immune=yes origin=operator
		deny 192.0.2.4 origin=operator
		deny 192.0.2.5 expires=2026-07-01T12:00:00Z origin=operator`)...)
	p := policy.Compile(set, ports, caps, start)
	got := load(p).entries
	want := map[string]rule.Entry{
		"operator allow 192.0.2.1/32": {Verdict: rule.Pass, Limits: rule.Limits{Conns: 50, Interval: 50 * time.Millisecond, Burst: 40}},
		"operator allow 192.0.2.2/32": {Verdict: rule.Pass},
		"operator allow 192.0.2.3/32": {Verdict: rule.Pass, Relay: true, Immune: true,
			Limits: rule.Limits{Conns: 3, Interval: 10 * time.Second, Burst: 2, Shared: true}},
		"operator deny 192.0.2.4/32": {Verdict: rule.Drop},
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d (the expired one left out)", len(got), len(want))
	}
	for e := range set.All() {
		w, live := want[e.Key().String()]
		if w.ID = e.ID(); live && got[e.ID()] != w {
			t.Errorf("%s: %+v, want %+v", e.Key(), got[e.ID()], w)
		}
	}
	if l := p.Ports[1].Limits; l.Conns != 50 || l.Burst != 40 || p.Ports[0].Limits != (rule.Limits{}) {
		t.Errorf("ports %+v: want the caps where the default is pass, none elsewhere", p.Ports)
	}
	if p.IPv6Prefix != 64 {
		t.Errorf("IPv6Prefix %d", p.IPv6Prefix)
	}
}

func TestIDsAreStable(t *testing.T) {
	// Kernels keep hits and caps under these over upgrades: they must never change.
	for text, id := range map[string]uint64{
		"allow 192.0.2.0/24 origin=operator":   0xf03ea591db42fc6e,
		"deny 192.0.2.0/24 origin=operator":    0xff6514ea241bc2d6,
		"deny 2001:db8::/32 origin=feed:spam":  0x1f5c25ada54b3ae0,
		"allow 192.0.2.0/24 25 origin=file":    0xbc96c0ff3a033e74,
		"deny 2001:db8::/32 origin=feed:other": 0x3f12cbd17d1de6b1,
	} {
		if got := parse(t, text)[0].ID(); got != id {
			t.Errorf("%s: ID %#x, want %#x", text, got, id)
		}
	}
}

func TestCompiledPolicyOutlivesChangesOfTheSet(t *testing.T) {
	set := policy.NewSet(parse(t, "allow 192.0.2.0/24 origin=operator\nallow 10.0.0.0/8 origin=operator")...)
	p := policy.Compile(set, ports, caps, start)
	for _, e := range parse(t, "allow 192.0.2.0/24 origin=operator\nallow 10.0.0.0/8 origin=operator") {
		set.Remove(e.Key())
	}
	if k := load(p); len(k.rules) != 2 || len(k.entries) != 2 || set.Len() != 0 {
		t.Errorf("%d rules, %d entries, %d in the set; want 2, 2, 0", len(k.rules), len(k.entries), set.Len())
	}
}

func BenchmarkCompileMillion(b *testing.B) {
	set := policy.NewSet()
	for i := range uint32(1 << 20) {
		a := netip.AddrFrom4([4]byte{byte(i >> 12), byte(i >> 4), byte(i << 4), 1})
		set.Put(policy.Entry{Action: policy.Allow, Origin: policy.Operator, Prefix: netip.PrefixFrom(a, 32)})
	}
	for b.Loop() {
		n := 0
		for range policy.Compile(set, ports, caps, start).Rules {
			n++
		}
		if n != 1<<20 {
			b.Fatal(n)
		}
	}
}
