package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// fakeKernel holds the rules that it was given. Its verdict is always answer.
type fakeKernel struct {
	prefixes []netip.Prefix
	known    bool // Update may be used
	updates  int
	fail     error
	answer   loader.Answer
	hits     map[uint64]loader.Hit
	sources  []loader.Source
}

func (f *fakeKernel) Sync(p rule.Policy) (loader.Change, error) {
	if f.known = false; f.fail != nil {
		return loader.Change{}, f.fail
	}
	f.prefixes, f.known = nil, true
	for r := range p.Rules {
		f.prefixes = append(f.prefixes, r.Prefix)
	}
	return loader.Change{Added: len(f.prefixes)}, nil
}

func (f *fakeKernel) Replace(p rule.Policy) (loader.Change, error) { return f.Sync(p) }

func (f *fakeKernel) Update(d rule.Delta) (loader.Change, error) {
	if !f.known {
		return loader.Change{}, loader.ErrNeedsSync
	}
	if f.known = false; f.fail != nil {
		return loader.Change{}, f.fail
	}
	f.known = true
	f.updates++
	for _, r := range d.Set {
		if !slices.Contains(f.prefixes, r.Prefix) {
			f.prefixes = append(f.prefixes, r.Prefix)
		}
	}
	f.prefixes = slices.DeleteFunc(f.prefixes, func(p netip.Prefix) bool { return slices.Contains(d.Remove, p) })
	return loader.Change{Added: len(d.Set), Removed: len(d.Remove)}, nil
}

func (f *fakeKernel) Attach(name string, _ loader.Mode) (loader.Attachment, error) {
	return loader.Attachment{Interface: name}, nil
}
func (f *fakeKernel) Detach(string) error                       { return nil }
func (f *fakeKernel) Attachments() ([]loader.Attachment, error) { return nil, nil }
func (f *fakeKernel) Probe(netip.Addr, uint16) (loader.Answer, error) {
	return f.answer, nil
}
func (f *fakeKernel) Counters() ([]loader.Counter, error)  { return nil, nil }
func (f *fakeKernel) Hits() (map[uint64]loader.Hit, error) { return f.hits, nil }
func (f *fakeKernel) Sources() ([]loader.Source, error)    { return f.sources, nil }

// newTestAgent is an agent on a fake kernel and a real store.
func newTestAgent(t *testing.T) (*Agent, *fakeKernel) {
	t.Helper()
	c := DefaultConfig()
	c.Filter.Interfaces = []string{"lo"}
	a := newAgent(Options{Config: c, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	var err error
	if a.plan, err = c.plan(); err != nil {
		t.Fatal(err)
	}
	if err := a.openStore(t.Context(), filepath.Join(t.TempDir(), "state", "store.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.store.Close() })
	k := &fakeKernel{}
	a.kernel = kernel{rules: k, links: k, readings: k, close: func() error { return nil }}
	return a, k
}

// call sends a request through a route's handler.
func call[T any](t *testing.T, h control.Handler, target string, body any) (out T, err error) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(string(b)))
	v, err := h(r)
	if err == nil {
		out = v.(T)
	}
	return out, err
}

func allow(prefixes ...string) control.Add {
	var add control.Add
	for _, p := range prefixes {
		add.Entries = append(add.Entries, policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix(p)})
	}
	return add
}

func stored(t *testing.T, a *Agent) (out []string) {
	t.Helper()
	entries, _, err := store.Entries(t.Context(), a.store)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Prefix.String())
	}
	slices.Sort(out)
	return out
}

func inForce(k *fakeKernel) (out []string) {
	for _, p := range k.prefixes {
		out = append(out, p.String())
	}
	slices.Sort(out)
	return out
}

func TestChangeIsInForceWhenAnswered(t *testing.T) {
	a, k := newTestAgent(t)
	ans, err := call[control.Changed](t, a.addEntries, "/v1/entries", allow("192.0.2.0/24", "2001:db8::/32"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.0/24", "2001:db8::/32"}
	if diff := cmp.Diff(want, inForce(k)); diff != "" {
		t.Error("kernel:", diff)
	}
	if diff := cmp.Diff(want, stored(t, a)); diff != "" {
		t.Error("store:", diff)
	}
	if len(ans.Added) != 2 || ans.Rules == nil {
		t.Errorf("answer %+v", ans)
	}
	again, err := call[control.Changed](t, a.addEntries, "/v1/entries", allow("192.0.2.0/24"))
	if err != nil || again.Unchanged != 1 || again.Rules != nil {
		t.Errorf("again: %+v, %v; want nothing to change", again, err)
	}
}

func TestSmallChangesAreQuickAndLargeOnesWhole(t *testing.T) {
	a, k := newTestAgent(t)
	for i, c := range []struct {
		entries, updates int
	}{{1, 0}, {3, 0}, {fewChanges + 1, 0}, {1, 1}} { // the first meets rules that are not known
		var add control.Add
		for j := range c.entries {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(i), byte(j >> 8), byte(j), 0}), 24)
			add.Entries = append(add.Entries, policy.Entry{Action: policy.Allow, Prefix: p})
		}
		changed(t, a.addEntries, add)
		if k.updates != c.updates {
			t.Errorf("step %d: %d updates, want %d", i, k.updates, c.updates)
		}
		if diff := cmp.Diff(stored(t, a), inForce(k)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
	k.known = false // as after a reconcile that failed
	changed(t, a.removeEntries, control.Remove{Action: policy.Allow, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}})
	if diff := cmp.Diff(stored(t, a), inForce(k)); diff != "" {
		t.Error(diff)
	}
}

func TestKernelRefusalPutsStoreBack(t *testing.T) {
	a, k := newTestAgent(t)
	if _, err := call[control.Changed](t, a.addEntries, "/", allow("192.0.2.0/24", "198.51.100.0/24")); err != nil {
		t.Fatal(err)
	}
	before := stored(t, a)
	k.fail = errors.New("no memory")
	_, err := call[control.Changed](t, a.addEntries, "/", allow("203.0.113.0/24"))
	if err == nil || !strings.HasPrefix(err.Error(), "nothing changed") {
		t.Fatalf("add: %v", err)
	}
	rm := control.Remove{Action: policy.Allow, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	if _, err := call[control.Changed](t, a.removeEntries, "/", rm); err == nil {
		t.Fatal("remove did not fail")
	}
	if diff := cmp.Diff(before, stored(t, a)); diff != "" {
		t.Error("store after refusals:", diff)
	}
	if set, _ := a.state(); set.Len() != 2 {
		t.Errorf("%d entries in memory, want 2", set.Len())
	}
}

func TestOneBadEntryChangesNothing(t *testing.T) {
	a, k := newTestAgent(t)
	if _, err := call[control.Changed](t, a.addEntries, "/", allow("192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		entry  policy.Entry
		want   string
		status int
	}{
		"bad port":    {policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Ports: []uint16{26}}, "10.0.0.0/8", 400},
		"bad expiry":  {policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Expires: time.Now().Add(-time.Hour)}, "expired", 400},
		"bad action":  {policy.Entry{Action: "maybe", Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "action", 400},
		"bad clash":   {policy.Entry{Action: policy.Deny, Prefix: netip.MustParsePrefix("192.0.2.0/24")}, "contradicts", 409},
		"bad mapped":  {policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")}, "IPv4", 400},
		"bad nothing": {policy.Entry{Action: policy.Allow}, "prefix missing", 400},
	} {
		add := allow("198.51.100.0/24")
		add.Entries = append(add.Entries, bad.entry)
		_, err := call[control.Changed](t, a.addEntries, "/", add)
		if err == nil || !strings.Contains(err.Error(), bad.want) || control.StatusOf(err) != bad.status {
			t.Errorf("%s: %v, want %d with %q", name, err, bad.status, bad.want)
		}
		if diff := cmp.Diff([]string{"192.0.2.0/24"}, inForce(k)); diff != "" {
			t.Errorf("%s: kernel: %s", name, diff)
		}
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	a, k := newTestAgent(t)
	add := allow("192.0.2.0/24")
	add.DryRun = true
	ans, err := call[control.Changed](t, a.addEntries, "/", add)
	if err != nil || len(ans.Added) != 1 {
		t.Fatalf("%+v, %v", ans, err)
	}
	if len(stored(t, a))+len(inForce(k)) != 0 {
		t.Error("a dry run changed something")
	}
}

func TestExplainSaysWhereKernelAndPolicyDiffer(t *testing.T) {
	a, k := newTestAgent(t)
	if _, err := call[control.Changed](t, a.addEntries, "/", allow("192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	set, _ := a.state()
	var id uint64
	for e := range set.All() {
		id = e.ID()
	}
	for name, c := range map[string]struct {
		answer loader.Answer
		agree  bool
	}{
		"same":          {loader.Answer{Verdict: rule.Pass, Reason: loader.Allowed, EntryID: id}, true},
		"cap reached":   {loader.Answer{Verdict: rule.Drop, Reason: loader.RateCap, EntryID: id}, true},
		"other verdict": {loader.Answer{Verdict: rule.Drop, Reason: loader.NoEntry}, false},
		"other entry":   {loader.Answer{Verdict: rule.Pass, Reason: loader.Allowed, EntryID: id + 1}, false},
	} {
		k.answer = c.answer
		ans, err := call[control.Explanation](t, a.explain, "/v1/explain?addr=192.0.2.1&port=587", nil)
		if err != nil || ans.Agree != c.agree {
			t.Errorf("%s: agree %v, %v, want %v", name, ans.Agree, err, c.agree)
		}
	}
}

func TestApplyPolicyReplacesOwnEntries(t *testing.T) {
	a, k := newTestAgent(t)
	if _, err := call[control.Changed](t, a.addEntries, "/", allow("192.0.2.0/24", "198.51.100.0/24")); err != nil {
		t.Fatal(err)
	}
	text := "allow 192.0.2.0/24\ndeny 192.0.2.66\n"
	ans, err := call[control.Changed](t, a.applyPolicy, "/", control.Apply{Name: "p", Text: text})
	if err != nil {
		t.Fatal(err)
	}
	if len(ans.Added) != 1 || len(ans.Removed) != 1 || ans.Unchanged != 1 {
		t.Errorf("added %d, removed %d, unchanged %d; want one each", len(ans.Added), len(ans.Removed), ans.Unchanged)
	}
	want := []string{"192.0.2.0/24", "192.0.2.66/32"}
	if diff := cmp.Diff(want, inForce(k)); diff != "" {
		t.Error(diff)
	}
	_, err = call[control.Changed](t, a.applyPolicy, "/", control.Apply{Name: "p", Text: "allow 10.0.0.0/8\nfrob 1.1.1.1\n"})
	if err == nil || !strings.Contains(err.Error(), "p:2:1") {
		t.Errorf("bad line: %v", err)
	}
	if diff := cmp.Diff(want, inForce(k)); diff != "" {
		t.Error("after a bad file:", diff)
	}
}

func TestExpiryBringsReconcile(t *testing.T) {
	a, k := newTestAgent(t)
	add := allow("192.0.2.0/24")
	add.Entries[0].Expires = time.Now().Add(time.Second)
	if _, err := call[control.Changed](t, a.addEntries, "/", add); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.reconcileLoop(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a.changing.Lock()
		n := len(k.prefixes)
		a.changing.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the expired entry stays in the kernel")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRingKeepsTheLastAndFollows(t *testing.T) {
	r := newRing[int](3)
	for i := range 5 {
		r.add(i)
	}
	got := make(chan int, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.each(ctx, 0, true, func(n int) error { got <- n; return nil }) }()
	for _, want := range []int{2, 3, 4} {
		if n := <-got; n != want {
			t.Errorf("got %d, want %d", n, want)
		}
	}
	r.add(5)
	if n := <-got; n != 5 {
		t.Errorf("followed to %d, want 5", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPickInterfaces(t *testing.T) {
	have := []string{"lo", "eth0", "eth1", "wg0"}
	for name, c := range map[string]struct{ want, auto, names, missing []string }{
		"names":          {[]string{"eth1", "eth0", "eth1"}, nil, []string{"eth0", "eth1"}, nil},
		"glob":           {[]string{"eth*"}, nil, []string{"eth0", "eth1"}, nil},
		"glob spares lo": {[]string{"*"}, nil, []string{"eth0", "eth1", "wg0"}, nil},
		"empty glob":     {[]string{"tun*"}, nil, nil, nil},
		"auto":           {[]string{"auto"}, []string{"wg0"}, []string{"wg0"}, nil},
		"bad auto":       {[]string{"auto"}, nil, nil, []string{"auto"}},
		"bad name":       {[]string{"eth0", "eth9"}, nil, []string{"eth0"}, []string{"eth9"}},
	} {
		names, missing := pick(c.want, have, c.auto)
		if !slices.Equal(names, c.names) || !slices.Equal(missing, c.missing) {
			t.Errorf("%s: %v missing %v, want %v missing %v", name, names, missing, c.names, c.missing)
		}
	}
}
