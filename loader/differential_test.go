package loader_test

import (
	"errors"
	"flag"
	"iter"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// A long run wants more: go test ./loader -run Differential -timeout 2h -args -rounds 5000
var rounds = flag.Int("rounds", 25, "policies that the differential test tries, each with 2,000 frames")

func open(t testing.TB) *loader.Filter {
	t.Helper()
	f, err := loader.Open(loader.Options{PinDir: filepath.Join(lab.BPFFS(t), "synward")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// randomModel is a policy of nested prefixes of both families, with rules that
// change by themselves. Its expiries are hours away, on either side of now.
func randomModel(r *frames) model {
	m := model{entries: map[uint64]rule.Entry{}, crowd: crowd{}, now: time.Now()}
	r.near = nil
	for _, n := range [][]uint16{{25}, {25, 587}, {587, 465, 25}}[r.IntN(3)] {
		m.ports = append(m.ports, rule.Port{Number: n, Default: rule.Verdict(1 + r.IntN(2)), Observe: r.IntN(4) == 0, All: r.IntN(3) == 0})
	}
	for id := uint64(100); id < 100+uint64(1+r.IntN(30)); id++ {
		m.entries[id] = rule.Entry{ID: id, Verdict: rule.Verdict(1 + r.IntN(2))}
	}
	used := map[netip.Prefix]bool{}
	for range r.IntN(40) {
		if p := r.prefix(); !used[p] {
			used[p] = true
			m.rules = append(m.rules, rule.Rule{Prefix: p, Steps: randomSteps(*r, m)})
		}
	}
	return m
}

func (r frames) prefix() netip.Prefix {
	if r.IntN(3) > 0 {
		return netip.PrefixFrom(r.addr4(), []int{0, 8, 15, 16, 23, 24, 30, 31, 32}[r.IntN(9)]).Masked()
	}
	lengths := []int{32, 40, 64, 72, 127, 128, 16, 29, 33, 48}
	if r.IntN(20) == 0 {
		lengths = []int{0, 3} // too wide for the index
	}
	return netip.PrefixFrom(r.addr6(), lengths[r.IntN(len(lengths))]).Masked()
}

func randomSteps(r frames, m model) []rule.Step {
	var steps []rule.Step
	until := m.now.Add(-time.Duration(1+r.IntN(4))*time.Hour - 7*time.Minute) // never just now
	for range r.IntN(rule.MaxSteps) {
		steps = append(steps, rule.Step{Until: until})
		until = until.Add(time.Duration(1+r.IntN(3)) * 90 * time.Minute)
	}
	steps = append(steps, rule.Step{})
	for i := range steps {
		for slot := range m.ports {
			if r.IntN(4) > 0 {
				steps[i].Ports[slot] = 100 + uint64(r.IntN(len(m.entries)))
			}
		}
	}
	return steps
}

func (m model) compiled() rule.Policy {
	entries := make([]rule.Entry, 0, len(m.entries))
	for _, e := range m.entries {
		entries = append(entries, e)
	}
	return rule.Policy{Ports: m.ports, IPv6Prefix: 64, Entries: slices.Values(entries), Rules: m.all()}
}

// all are its rules, the many and the few.
func (m model) all() iter.Seq[rule.Rule] {
	return func(yield func(rule.Rule) bool) {
		for _, r := range m.rules {
			if !yield(r) {
				return
			}
		}
		m.crowd.rules()(yield)
	}
}

// The loaded program and the model must agree on every frame under every
// policy, whether the policy came whole or by small changes.
func TestDifferential(t *testing.T) {
	f := open(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := &frames{Rand: rand.New(rand.NewPCG(seed, 0))}
	reasons, indexes, glimpses := map[loader.Reason]int{}, indexSeen{}, map[string]int{}
	for round := range *rounds {
		m := randomModel(r)
		for i := range m.ports {
			m.ports[i].Reset = r.IntN(4) == 0
		}
		switch first := &m.ports[0]; round % 5 { // each kind of port comes, however few rounds there are
		case 0:
			first.Observe, first.Reset = false, true
		case 1:
			first.Observe = true
		case 2:
			first.Observe, first.Reset, first.Default = false, false, rule.Pass
		default:
			m.ports = []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 587, Default: rule.Drop}} // same ports: amended in place
		}
		r.crowded(&m, r.roundsKind(round))
		if _, err := f.Sync(m.compiled()); err != nil {
			t.Fatal(err)
		}
		if c, err := f.Sync(m.compiled()); err != nil || c != (loader.Change{}) {
			t.Fatalf("a second Sync of the same policy: %+v, %v; want nothing to do", c, err)
		}
		batches := 5
		if len(m.crowd) >= finest {
			batches = 1 // each change of it takes long
		}
		for range batches {
			indexes.look(t, f)
			for range 200 {
				frame := r.frame()
				reasons[compare(t, f, m, frame)]++
				glimpses[m.glimpse(frame)]++
			}
			withoutIndex(t, f, func() {
				for range 200 {
					compare(t, f, m, r.frame())
				}
			})
			d := m.mutate(*r)
			_, err := f.Update(d)
			if errors.Is(err, loader.ErrNeedsSync) { // not all that the index knows
				_, err = f.Replace(m.compiled())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if c, err := f.Sync(m.compiled()); err != nil || c != (loader.Change{}) {
			t.Fatalf("a Sync after Updates: %+v, %v; want nothing to do", c, err)
		}
	}
	reach(t, reasons, loader.NotOurs, loader.Allowed, loader.DefaultPass, loader.NoEntry, loader.Denied,
		loader.Fragment, loader.Headers, loader.Truncated, loader.SYNData, loader.Segment)
	reach(t, indexes, "IPv4 grain /16", "IPv6 grain /16", "IPv4 pages", "IPv6 pages")
	if *rounds > fewRounds {
		reach(t, indexes, "IPv4 grain /24", "IPv6 grain /24")
	}
	reach(t, glimpses, "another port", "no SYN", "a port that observes", "a port that resets", "a port that passes",
		"a partner or who is denied", "a partner's neighbour", "a stranger")
	t.Log(reasons, indexes, glimpses)
}

// reach fails the test where the generator has gone blind.
func reach[K comparable](t *testing.T, seen map[K]int, wanted ...K) {
	t.Helper()
	for _, want := range wanted {
		if seen[want] == 0 {
			t.Errorf("never met: %v", want)
		}
	}
}

// withoutIndex has the tries answer for a while.
func withoutIndex(t *testing.T, f *loader.Filter, fn func()) {
	t.Helper()
	if ok, err := f.Indexed(); !ok || err != nil {
		t.Fatalf("the index does not answer: %v", err)
	}
	states, err := ebpf.LoadPinnedMap(filepath.Join(f.Dir(), "filter", "states"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	var was [4]uint32
	if err := errors.Join(states.Lookup(uint32(0), &was), states.Put(uint32(0), [4]uint32{was[0], was[1] & 1, was[2], was[3]})); err != nil {
		t.Fatal(err)
	}
	fn()
	if err := states.Put(uint32(0), was); err != nil {
		t.Fatal(err)
	}
}

// mutate changes a policy a little, each prefix once, and says how.
func (m *model) mutate(r frames) rule.Delta {
	var d rule.Delta
	touched := map[netip.Prefix]bool{}
	m.rules = slices.Clone(m.rules)
	for range 1 + r.IntN(3) {
		p := r.prefix()
		remove := len(m.rules) > 0 && r.IntN(2) == 0
		if remove {
			p = m.rules[r.IntN(len(m.rules))].Prefix
		}
		if touched[p] || m.crowd[p] != nil {
			continue
		}
		touched[p] = true
		m.rules = slices.DeleteFunc(m.rules, func(x rule.Rule) bool { return x.Prefix == p })
		if remove {
			d.Remove = append(d.Remove, p)
			continue
		}
		added := rule.Rule{Prefix: p, Steps: randomSteps(r, *m)}
		d.Set, m.rules = append(d.Set, added), append(m.rules, added)
	}
	return d
}

func compare(t *testing.T, f *loader.Filter, m model, frame []byte) loader.Reason {
	t.Helper()
	got, err := f.ProbeFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	if want := m.judge(frame); got != want {
		t.Fatalf("frame %x\nkernel %+v\nmodel  %+v\nports %+v", frame, got, want, m.ports)
	}
	return got.Reason
}

// Whatever bytes come, kernel and model say the same.
func FuzzFrame(f *testing.F) {
	filter := open(f)
	r := &frames{Rand: rand.New(rand.NewPCG(1, 2))}
	m := randomModel(r)
	if _, err := filter.Sync(m.compiled()); err != nil {
		f.Fatal(err)
	}
	for range 50 {
		f.Add(r.frame())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 1400 {
			return // a test run takes no others
		}
		compare(t, filter, m, frame)
	})
}
