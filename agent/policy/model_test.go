package policy_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader/rule"
)

var (
	start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	ports = []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 465, Default: rule.Pass}, {Number: 587, Default: rule.Drop}}
	caps  = policy.Caps{Conns: 50, Rate: policy.Rate{N: 20, Period: time.Second}, Burst: 40, IPv6Prefix: 64}
)

// dice turns bytes into choices, so that the fuzzer can steer them. A narrow
// one picks few addresses, so that many entries contain one another.
type dice struct {
	data   []byte
	narrow bool
}

func (d *dice) n(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	v := int(d.data[0]) % n
	d.data = d.data[1:]
	return v
}

func roll(r *rand.Rand) *dice {
	data := make([]byte, 1200)
	for i := 0; i < len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], r.Uint64())
	}
	return &dice{data: data}
}

// addr picks one of few addresses that share long prefixes, at both ends of
// byte boundaries.
func (d *dice) addr() netip.Addr {
	b := []byte{0, 1, 127, 128, 255}
	last := []byte{10, 0, 127, b[d.n(2)]}
	if !d.narrow {
		last = []byte{10, b[d.n(2)], b[d.n(5)], b[d.n(5)]}
	}
	if d.narrow || d.n(2) == 0 {
		return netip.AddrFrom4([4]byte(last))
	}
	a := netip.MustParseAddr("2001:db8::").As16()
	copy(a[6:], last)
	copy(a[12:], last)
	return netip.AddrFrom16(a)
}

func (d *dice) entry() policy.Entry {
	a := d.addr()
	bits := []int{0, 8, 9, 15, 16, 23, 24, 25, 31, 32}
	if a.Is6() {
		bits = []int{0, 32, 48, 56, 57, 63, 64, 65, 127, 128}
	}
	n := bits[d.n(len(bits))]
	if d.narrow {
		n = d.n(33)
	}
	p, _ := a.Prefix(n)
	e := policy.Entry{
		Prefix: p,
		Action: []policy.Action{policy.Allow, policy.Deny}[d.n(2)],
		Origin: []policy.Origin{policy.Operator, policy.File, policy.Feed, policy.Learned}[d.n(4)],
	}
	for _, port := range []uint16{25, 465, 587, 2525}[:d.n(5)] {
		if d.n(3) > 0 {
			e.Ports = append(e.Ports, port)
		}
	}
	if e.Origin == policy.Feed {
		e.Feed = []string{"a", "b"}[d.n(2)]
	}
	if e.Origin == policy.Operator {
		e.Name = []string{"", "", "a.example", "b.example"}[d.n(4)]
	}
	if d.n(2) == 0 || d.narrow {
		e.Expires = start.Add(time.Duration(d.n(24)-3) * time.Minute)
	}
	if e.Action == policy.Allow {
		e.Immune = d.n(4) == 0
		if n := uint32(d.n(100)); n > 50 && p.Bits() > 0 {
			e.MaxConns, e.Relay = &n, e.Origin != policy.Feed
		}
	}
	return e
}

func (d *dice) set(most int) *policy.Set {
	s := policy.NewSet()
	for range d.n(most) {
		s.Put(d.entry())
	}
	return s
}

// lookup is the plainest longest-prefix match.
func lookup(rules []rule.Rule, a netip.Addr) (longest rule.Rule) {
	longest.Steps = []rule.Step{{}}
	for _, r := range rules {
		if r.Prefix.Contains(a) && (!longest.Prefix.IsValid() || r.Prefix.Bits() > longest.Prefix.Bits()) {
			longest = r
		}
	}
	return longest
}

// stepAt is the index of the step that holds at t.
func stepAt(r rule.Rule, t time.Time) int {
	return slices.IndexFunc(r.Steps, func(s rule.Step) bool { return s.Until.IsZero() || t.Before(s.Until) })
}

// checkCompiled compares what one lookup says with the model, and returns how
// many answers lay where the steps had been cut.
func checkCompiled(t *testing.T, s *policy.Set, d *dice) (cut int) {
	t.Helper()
	p := policy.Compile(s, ports, caps, start)
	rules, all := slices.Collect(p.Rules), slices.Collect(s.All())
	verdicts := map[uint64]rule.Verdict{}
	for e := range p.Entries {
		verdicts[e.ID] = e.Verdict
	}
	checkShape(t, rules)
	for range 40 {
		a, at, slot := d.addr(), start.Add(time.Duration(d.n(48))*30*time.Second), d.n(len(ports))
		want := policy.Decide(at, all, a, ports[slot])
		var wantID uint64
		if want.Entry != nil {
			wantID = want.Entry.ID()
		}
		r := lookup(rules, a)
		i := stepAt(r, at)
		gotID := r.Steps[i].Ports[slot]
		got := ports[slot].Default
		if v, ok := verdicts[gotID]; ok {
			got = v
		} else if gotID != 0 {
			t.Fatalf("rule %v names entry %d, which is not among the entries", r, gotID)
		}
		if i == rule.MaxSteps-1 {
			cut++
			if want.Verdict == rule.Drop && got != rule.Drop {
				t.Fatalf("%s port %d at %s: passed behind the last step, want drop\nrule %v\nset %v", a, ports[slot].Number, at, r, all)
			}
			continue
		}
		if got != want.Verdict || gotID != wantID {
			t.Fatalf("%s port %d at %s: compiled %s by %d, model %s by %d\nrule %v\nset %v", a, ports[slot].Number, at, got, gotID, want.Verdict, wantID, r, all)
		}
	}
	return cut
}

// checkShape checks what the loader relies on in rules.
func checkShape(t *testing.T, rules []rule.Rule) {
	t.Helper()
	for i, r := range rules {
		if n := len(r.Steps); n < 1 || n > rule.MaxSteps || !r.Steps[n-1].Until.IsZero() {
			t.Fatalf("rule %v: bad number of steps or no end", r)
		}
		for j := 1; j < len(r.Steps); j++ {
			if len(r.Steps) < rule.MaxSteps && r.Steps[j].Ports == r.Steps[j-1].Ports {
				t.Fatalf("rule %v: a step that changes nothing", r)
			}
			if prev := r.Steps[j-1]; j < len(r.Steps)-1 && !prev.Until.Before(r.Steps[j].Until) || prev.Until.IsZero() {
				t.Fatalf("rule %v: steps out of order", r)
			}
		}
		if r.Prefix != r.Prefix.Masked() {
			t.Fatalf("rule %v: not masked", r)
		}
		around := rules[:i]
		if p := r.Prefix; p.Bits() > 0 { // rules are sorted: what is around comes before
			if outer := lookup(around, p.Addr()); reflect.DeepEqual(outer.Steps, r.Steps) {
				t.Fatalf("rule %v says what %v around it says", r, outer)
			}
		}
	}
}

func TestCompiledRulesSayWhatTheModelSays(t *testing.T) {
	cut := 0
	for seed := range uint64(1000) {
		d := roll(rand.New(rand.NewPCG(seed, 1)))
		d.narrow = seed%2 == 0
		cut += checkCompiled(t, d.set(48), d)
	}
	if cut == 0 {
		t.Error("no policy had more steps than the kernel follows: the test has lost its teeth")
	}
}

func FuzzCompile(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(roll(rand.New(rand.NewPCG(seed, 2))).data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &dice{data: data, narrow: len(data)%2 == 0}
		checkCompiled(t, d.set(32), d)
	})
}

// kernel stands for the maps that deltas are applied to.
type kernel struct {
	rules   map[netip.Prefix]rule.Rule
	entries map[uint64]rule.Entry
}

func load(p rule.Policy) kernel {
	k := kernel{map[netip.Prefix]rule.Rule{}, map[uint64]rule.Entry{}}
	for r := range p.Rules {
		k.rules[r.Prefix] = r
	}
	for e := range p.Entries {
		k.entries[e.ID] = e
	}
	return k
}

func (k kernel) apply(d rule.Delta) {
	for _, e := range d.Entries {
		k.entries[e.ID] = e
	}
	for _, r := range d.Set {
		k.rules[r.Prefix] = r
	}
	for _, p := range d.Remove {
		delete(k.rules, p)
	}
	for _, id := range d.Gone {
		delete(k.entries, id)
	}
}

// effect counts what differs between the rules of two kernels.
func effect(from, to kernel) (e policy.Effect) {
	for p, r := range to.rules {
		if was, ok := from.rules[p]; !ok {
			e.Added++
		} else if !reflect.DeepEqual(was, r) {
			e.Updated++
		}
	}
	for p := range from.rules {
		if _, ok := to.rules[p]; !ok {
			e.Removed++
		}
	}
	return e
}

func TestRecompileEqualsCompile(t *testing.T) {
	for seed := range uint64(800) {
		d := roll(rand.New(rand.NewPCG(seed, 3)))
		from := d.set(16)
		to := from.Clone()
		for range 1 + d.n(4) {
			if old := slices.Collect(to.All()); len(old) > 0 && d.n(2) == 0 {
				to.Remove(old[d.n(len(old))].Key())
			} else {
				to.Put(d.entry())
			}
		}
		got := load(policy.Compile(from, ports, caps, start))
		got.apply(policy.Recompile(from, to, ports, caps, start, policy.Diff(from, to).Prefixes()))
		want := load(policy.Compile(to, ports, caps, start))
		if got, want := policy.EffectOf(from, to, ports, start, policy.Diff(from, to).Prefixes()), effect(load(policy.Compile(from, ports, caps, start)), want); got != want {
			t.Fatalf("seed %d: effect %+v, want %+v", seed, got, want)
		}
		if reflect.DeepEqual(want, got) {
			continue
		}
		opts := cmp.Options{cmp.AllowUnexported(kernel{}), cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(want, got, opts); diff != "" {
			t.Fatalf("seed %d: compiled whole (-) and in part (+) differ:\n%s", seed, diff)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		s := roll(rand.New(rand.NewPCG(seed, 4))).set(24)
		var first, again bytes.Buffer
		o := policy.FormatOptions{Origins: true}
		if err := policy.Format(&first, s.All(), o); err != nil {
			t.Fatal(err)
		}
		entries, warnings, err := policy.Parse(bytes.NewReader(first.Bytes()), policy.ParseOptions{Name: "x", Now: start, Origins: true})
		if err != nil || len(warnings) > 0 {
			t.Fatalf("parse what Format wrote: %v %v\n%s", err, warnings, &first)
		}
		read := policy.NewSet(entries...)
		if c := policy.Diff(s, read); !c.Empty() {
			t.Fatalf("changed on the way through text: %+v\n%s", c, &first)
		}
		if err := policy.Format(&again, read.All(), o); err != nil || again.String() != first.String() {
			t.Fatalf("two exports differ (%v):\n%s\n%s", err, &first, &again)
		}
	}
}
