package loader_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// Lengths that lie open nothing: a SYN whose packet or header claims more than
// there is, or less, is dropped as one with data, or the stack drops it.
func TestLyingLengths(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	for i, c := range []struct {
		what     string
		src      string
		spoil    func(f []byte) []byte
		reason   loader.Reason
		answered bool
	}{
		{"as it should be", "192.0.2.2", func(f []byte) []byte { return f }, loader.Allowed, true},
		{"padded by Ethernet", "192.0.2.2", func(f []byte) []byte { return append(f, 0, 0, 0, 0, 0, 0) }, loader.Allowed, true},
		{"more than the frame", "192.0.2.2", length4(60), loader.SYNData, false},
		{"half a TCP header", "192.0.2.2", length4(30), loader.Allowed, false},
		{"less than IP's header", "192.0.2.2", length4(10), loader.SYNData, false},
		{"TCP header of 16 bytes", "192.0.2.2", offset(34, 4), loader.SYNData, false},
		{"TCP header of 60 bytes", "192.0.2.2", offset(34, 15), loader.Allowed, false},
		{"a stranger's: more than the frame", "192.0.2.3", length4(60), loader.NoEntry, false},
		{"a stranger's: half a TCP header", "192.0.2.3", length4(30), loader.NoEntry, false},
		{"as it should be", "2001:db8::2", func(f []byte) []byte { return f }, loader.Allowed, true},
		{"more than the frame", "2001:db8::2", length6(60), loader.SYNData, false},
		{"half a TCP header", "2001:db8::2", length6(10), loader.Allowed, false},
		{"none (no jumbogram)", "2001:db8::2", length6(0), loader.Allowed, false},
		{"a stranger's: none", "2001:db8::3", length6(0), loader.NoEntry, false},
	} {
		frame := e.frame(t, c.src, 25)
		frame[len(frame)-19] = byte(i) // a source port of its own
		checksumAny(frame)
		frame = c.spoil(frame)
		if got, err := e.filter.ProbeFrame(frame); err != nil || got.Reason != c.reason {
			t.Errorf("%s, %s: %+v, %v; want %s", c.src, c.what, got, err, c.reason)
		}
		if got := e.answered(t, 25, frame); got != c.answered {
			t.Errorf("%s, %s: answered %v", c.src, c.what, got)
		}
	}
}

// length4 gives an IPv4 header another length, and its checksum; TCP's stays as
// it is for the whole.
func length4(n uint16) func([]byte) []byte {
	return func(f []byte) []byte {
		binary.BigEndian.PutUint16(f[16:], n)
		f[24], f[25] = 0, 0
		sum := words(f[14:34])
		binary.BigEndian.PutUint16(f[24:], ^uint16(sum>>16+sum&0xffff))
		return f
	}
}

func length6(n uint16) func([]byte) []byte {
	return func(f []byte) []byte { binary.BigEndian.PutUint16(f[18:], n); return f }
}

// offset gives the TCP header at a place another length, in words.
func offset(tcp int, n byte) func([]byte) []byte {
	return func(f []byte) []byte { f[tcp+12] = n << 4; checksumAny(f); return f }
}

// An IPv6 address that holds an IPv4 address is an IPv6 address: no IPv4 entry
// allows it or denies it.
func TestEmbeddedAddressesMeetNoIPv4Entry(t *testing.T) {
	t.Parallel()
	f := open(t)
	embedded := map[string]string{
		"::ffff:192.0.2.2":             "mapped, RFC 4291 section 2.5.5.2",
		"::192.0.2.2":                  "compatible, RFC 4291 section 2.5.5.1",
		"2002:c000:202::1":             "6to4, RFC 3056",
		"64:ff9b::192.0.2.2":           "NAT64, RFC 6052",
		"64:ff9b:1::192.0.2.2":         "NAT64, RFC 8215",
		"2001:0:c000:202::3fff:fdfd":   "Teredo, RFC 4380",
		"2001:db8::200:5efe:192.0.2.2": "ISATAP, RFC 5214",
	}
	policy := func(v rule.Verdict, def rule.Verdict, prefixes ...string) {
		t.Helper()
		var rules []rule.Rule
		for _, p := range prefixes {
			rules = append(rules, rule.Rule{Prefix: netip.MustParsePrefix(p), Steps: []rule.Step{{Ports: [8]uint64{100}}}})
		}
		if _, err := f.Sync(rule.Policy{
			Ports: []rule.Port{{Number: 25, Default: def}}, IPv6Prefix: 64,
			Entries: slices.Values([]rule.Entry{{ID: 100, Verdict: v}}), Rules: slices.Values(rules),
		}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(a string, want loader.Reason) {
		t.Helper()
		if got, err := f.Probe(netip.MustParseAddr(a), 25); err != nil || got.Reason != want {
			t.Errorf("%s (%s): %+v, %v; want %s", a, embedded[a], got, err, want)
		}
	}
	policy(rule.Pass, rule.Drop, "192.0.2.2/32", "0.0.0.0/0")
	for a := range embedded {
		ask(a, loader.NoEntry)
		withoutIndex(t, f, func() { ask(a, loader.NoEntry) })
	}
	policy(rule.Drop, rule.Pass, "192.0.2.2/32", "0.0.0.0/0")
	for a := range embedded {
		ask(a, loader.DefaultPass)
	}
	policy(rule.Pass, rule.Drop, "64:ff9b::c000:202/128") // a translator's client has an entry of its own
	ask("64:ff9b::192.0.2.2", loader.Allowed)
	ask("192.0.2.2", loader.NoEntry)
}
