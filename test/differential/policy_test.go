// Package differential holds the loaded kernel program against the plain
// precedence of the policy, over all that stands between the two: the compiler,
// the loader's difference, the maps.
package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// A long run wants more: go test ./test/differential -timeout 6h -args -rounds 5000
var rounds = flag.Int("rounds", 60, "policies, or changes of one")

const (
	probes  = 150 // sources asked about in each, on every port
	biggest = 60  // entries in a new policy
	crowd   = 700 // more of each family in a crowded one: their ranges fill pages of the index
)

var caps = policy.Caps{Conns: 50, Rate: policy.Rate{N: 20, Period: time.Second}, Burst: 40, IPv6Prefix: 64}

// dice makes policies and sources that meet often: few addresses, at the ends
// of prefixes.
type dice struct {
	*rand.Rand
	now  time.Time    // in whole seconds
	ends []time.Time  // that entries may end at: fewer than the kernel follows
	near []netip.Addr // and prefixes are there, in a crowded policy
}

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

func (d dice) addr() netip.Addr {
	if len(d.near) > 0 && d.IntN(2) == 0 {
		return d.near[d.IntN(len(d.near))]
	}
	octet := func() byte { return pick(d, byte(0), 1, 127, 128, 255) }
	tail := []byte{10, octet() & 1, octet(), octet()}
	if d.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte(tail))
	}
	a := netip.MustParseAddr("2001:db8::").As16()
	copy(a[5:], tail)
	copy(a[12:], tail)
	return netip.AddrFrom16(a)
}

func (d dice) entry() policy.Entry {
	a := d.addr()
	bits := pick(d, 0, 7, 8, 15, 16, 23, 24, 25, 31, 32, 32)
	if a.Is6() {
		bits = pick(d, 0, 32, 47, 48, 56, 63, 64, 65, 96, 127, 128)
	}
	prefix, _ := a.Prefix(bits)
	e := policy.Entry{
		Prefix: prefix,
		Action: pick(d, policy.Allow, policy.Deny),
		Origin: pick(d, policy.Operator, policy.Operator, policy.File, policy.Feed, policy.Learned),
	}
	for _, p := range []uint16{25, 465, 587} {
		if d.IntN(3) == 0 {
			e.Ports = append(e.Ports, p)
		}
	}
	if e.Origin == policy.Feed {
		e.Feed = pick(d, "a", "b")
	}
	if e.Action == policy.Allow {
		e.Immune, e.Shared = d.IntN(4) == 0, d.IntN(4) == 0
	}
	if d.IntN(2) == 0 {
		e.Expires = d.ends[d.IntN(len(d.ends))]
	}
	return e
}

func (d dice) ports() []rule.Port {
	ports := []rule.Port{{Number: 25}, {Number: 465}, {Number: 587}}[d.IntN(3):]
	if d.IntN(2) == 0 {
		slices.Reverse(ports)
	}
	for i := range ports {
		ports[i].Default, ports[i].Observe = pick(d, rule.Pass, rule.Drop), d.IntN(4) == 0
	}
	return ports
}

// crowd fills a policy with prefixes of one /16, and of one /32.
func (d *dice) crowd(s *policy.Set) {
	for i := range 2 * crowd {
		a, bits := netip.AddrFrom4([4]byte{10, 0, byte(d.IntN(256)), byte(d.IntN(256))}), pick(*d, 28, 30, 31, 32)
		if i%2 == 0 {
			b := netip.MustParseAddr("2001:db8::").As16()
			b[4], b[5], b[6], b[7] = 10, byte(d.IntN(2)), byte(d.IntN(256)), byte(d.IntN(256))
			a, bits = netip.AddrFrom16(b), pick(*d, 56, 60, 63, 64)
		}
		e := d.entry()
		e.Prefix, _ = a.Prefix(bits)
		s.Put(e)
		d.near = append(d.near, a, a.Next(), e.Prefix.Addr(), e.Prefix.Addr().Prev())
	}
}

// change makes a small change to a policy, or a new one, every third of them crowded.
func (d *dice) change(s *policy.Set) *policy.Set {
	if d.IntN(5) == 0 {
		s, d.near = policy.NewSet(), nil
		for range d.IntN(biggest) {
			s.Put(d.entry())
		}
		if d.IntN(3) == 0 {
			d.crowd(s)
		}
		return s
	}
	s = s.Clone()
	for range 1 + d.IntN(4) {
		if all := slices.Collect(s.All()); len(all) > 0 && d.IntN(2) == 0 {
			s.Remove(all[d.IntN(len(all))].Key())
		} else {
			s.Put(d.entry())
		}
	}
	return s
}

// tally says what the comparisons have reached, so that a generator that has
// gone blind is seen.
type tally map[string]int

// lacks are the kinds of verdict, and of policy, that have not been seen.
func (seen tally) lacks() (out []string) {
	for _, want := range []string{"allowed", "denied", "no-entry", "default-pass",
		"operator allow", "operator deny", "file allow", "file deny", "feed allow", "feed deny", "learned deny", "crowded"} {
		if seen[want] == 0 {
			out = append(out, want)
		}
	}
	return out
}

// compare asks the kernel and the policy about random sources, until a time at
// which the two may answer for different seconds (zero: there is none).
func (d dice) compare(t *testing.T, f *loader.Filter, s *policy.Set, ports []rule.Port, seen tally, until time.Time) {
	t.Helper()
	if len(d.near) > 0 {
		seen["crowded"]++
	}
	for range probes {
		if !until.IsZero() && time.Now().After(until) {
			return
		}
		a := d.addr()
		for _, port := range ports {
			got, err := f.Probe(a, port.Number)
			if err != nil {
				t.Fatal(err)
			}
			want := s.Decide(time.Now(), a, port)
			var id uint64
			if want.Entry != nil {
				id = want.Entry.ID()
			}
			gotID := got.EntryID
			if gotID < rule.FirstID {
				gotID = 0
			}
			if got.Verdict != want.Verdict || gotID != id || got.Observed != (port.Observe && want.Verdict == rule.Drop) {
				t.Fatalf("%s port %d: kernel %+v, policy %s by %+v\nports %+v\nchain %+v",
					a, port.Number, got, want.Verdict, want.Entry, ports, want.Chain)
			}
			seen[got.Reason.String()]++
			if want.Entry != nil {
				seen[fmt.Sprintf("%s %s", want.Entry.Origin, want.Entry.Action)]++
			}
		}
	}
}

// TestKernelDoesWhatThePolicySays: after every change, at once, in both
// families, on every port; the kernel answers as the precedence does.
func TestKernelDoesWhatThePolicySays(t *testing.T) {
	t.Parallel()
	f, err := loader.Open(loader.Options{PinDir: filepath.Join(lab.BPFFS(t), "synward")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := dice{Rand: rand.New(rand.NewPCG(seed, 0)), now: time.Now().Truncate(time.Second)}
	for _, end := range []time.Duration{-48 * time.Hour, -time.Minute, time.Hour, 2 * time.Hour, 48 * time.Hour} {
		d.ends = append(d.ends, d.now.Add(end).UTC())
	}
	seen, s, ports := tally{}, policy.NewSet(), d.ports()
	for round := 0; round < *rounds || len(seen.lacks()) > 0 && round < 20*(*rounds); round++ {
		if s = d.change(s); d.IntN(8) == 0 {
			ports = d.ports()
		}
		if _, err := f.Sync(policy.Compile(s, ports, caps, time.Now())); err != nil {
			t.Fatal(err)
		}
		d.compare(t, f, s, ports, seen, time.Time{})
	}
	if lacks := seen.lacks(); len(lacks) > 0 {
		t.Errorf("never met: %q: the generator does not reach it", lacks)
	}
	t.Log(seen)
}

// TestKernelExpiresByItself: what ends ends, in the order of its times, though
// nobody touches the maps.
func TestKernelExpiresByItself(t *testing.T) {
	t.Parallel()
	f, err := loader.Open(loader.Options{PinDir: filepath.Join(lab.BPFFS(t), "synward")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := dice{Rand: rand.New(rand.NewPCG(seed, 0)), now: time.Now().Truncate(time.Second)}
	// The kernel may be a second late, as it rounds up; so between two ends
	// there are times at which it cannot be.
	const apart = 4 * time.Second
	for i := range 3 {
		d.ends = append(d.ends, d.now.Add(time.Duration(i+1)*apart).UTC())
	}
	s, ports := policy.NewSet(), []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 587, Default: rule.Pass}}
	for range 3 * biggest {
		s.Put(d.entry())
	}
	// one whose way is known, so that this test cannot pass by seeing nothing
	mark := netip.MustParsePrefix("203.0.113.1/32")
	s.Put(policy.Entry{Action: policy.Allow, Immune: true, Prefix: mark, Origin: policy.Operator, Expires: d.ends[1]})
	s.Put(policy.Entry{Action: policy.Deny, Prefix: netip.MustParsePrefix("203.0.113.0/24"), Origin: policy.Operator})
	if _, err := f.Sync(policy.Compile(s, ports, caps, time.Now())); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		// in the calm between the ends: late enough after one, well before the next
		begun := d.now.Add(time.Duration(i) * apart)
		time.Sleep(time.Until(begun.Add(1500 * time.Millisecond)))
		got, err := f.Probe(mark.Addr(), 25)
		d.compare(t, f, s, ports, tally{}, begun.Add(apart-time.Second))
		if want := []rule.Verdict{rule.Pass, rule.Pass, rule.Drop, rule.Drop}[i]; err != nil || got.Verdict != want {
			t.Errorf("after %d ends the marked entry gives %+v (%v), want %s", i, got, err, want)
		}
	}
}
