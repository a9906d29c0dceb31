package loader

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// Several prefixes change at once: while the tries are being written the filter
// has the old policy, also where the agent dies then, and the next agent brings
// the new one.
func TestSeveralPrefixesChangeAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(lab.BPFFS(t), "synward")
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Sync(testPolicy("192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	steps := []rule.Step{{Ports: [rule.MaxPorts]uint64{100}}}
	d := rule.Delta{
		Set: []rule.Rule{
			{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Steps: steps},
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), Steps: steps},
		},
		Remove: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}
	verdicts := func(f *Filter) (out [3]rule.Verdict) {
		t.Helper()
		for i, a := range []string{"192.0.2.1", "198.51.100.1", "2001:db8::1"} {
			ans, err := f.Probe(netip.MustParseAddr(a), 25)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = ans.Verdict
		}
		return out
	}
	before, after := [3]rule.Verdict{rule.Pass, rule.Drop, rule.Drop}, [3]rule.Verdict{rule.Drop, rule.Pass, rule.Pass}
	st, err := f.state()
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.openHalf(st.half())
	if err != nil {
		t.Fatal(err)
	}
	e := f.table.edit()
	if err := e.apply(d); err != nil {
		t.Fatal(err)
	}
	if held, err := f.holdIndex(e); err != nil || !held {
		t.Fatalf("the index does not stand in for the tries: %v", err)
	}
	if err := h.apply(e); err != nil { // and here the agent dies
		t.Fatal(err)
	}
	h.close()
	if got := verdicts(f); got != before {
		t.Errorf("half way: %v, want the old policy, %v", got, before)
	}
	f.Close()
	if f, err = Open(Options{PinDir: dir}); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := verdicts(f); got != before {
		t.Errorf("after the agent's end: %v, want the old policy, %v", got, before)
	}
	if _, err := f.Sync(testPolicy("192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Update(d); err != nil {
		t.Fatal(err)
	}
	if got := verdicts(f); got != after {
		t.Errorf("after the update: %v, want %v", got, after)
	}
}
