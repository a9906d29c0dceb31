package agent

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/loader/rule"
)

// clock is a clock that stands until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// agentAt is an agent on a fake kernel and the store in a folder.
func agentAt(t *testing.T, dir string, now func() time.Time) (*Agent, *fakeKernel) {
	t.Helper()
	c := DefaultConfig()
	c.Filter.Interfaces = []string{"lo"}
	a := newAgent(Options{Config: c, Log: slog.New(slog.DiscardHandler), Now: now})
	var err error
	if a.plan, err = c.plan(); err != nil {
		t.Fatal(err)
	}
	if err := a.openStore(t.Context(), filepath.Join(dir, "store.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.store.Close() })
	k := &fakeKernel{}
	a.kernel = kernel{rules: k, links: k, readings: k, close: func() error { return nil }}
	return a, k
}

func changed(t *testing.T, h control.Handler, body any) control.Changed {
	t.Helper()
	ans, err := call[control.Changed](t, h, "/", body)
	if err != nil {
		t.Fatal(err)
	}
	return ans
}

// refused is the error's text of a request that must fail with a status.
func refused(t *testing.T, h control.Handler, body any, status int) string {
	t.Helper()
	_, err := call[any](t, h, "/", body)
	if err == nil || control.StatusOf(err) != status {
		t.Fatalf("error %v, want status %d", err, status)
	}
	return err.Error()
}

func TestHistoryTellsWhoWhenWhyAndSurvives(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	a, _ := agentAt(t, dir, c.now)
	add := allow("192.0.2.0/24", "198.51.100.0/24")
	add.Why = "the new branch"
	if ans := changed(t, a.addEntries, add); ans.ID != 1 {
		t.Errorf("change %d, want 1", ans.ID)
	}
	c.t = c.t.Add(time.Hour)
	changed(t, a.addEntries, allow("192.0.2.0/24")) // changes nothing, and is no change
	changed(t, a.removeEntries, control.Remove{Action: policy.Allow, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	a.store.Close()

	a, _ = agentAt(t, dir, c.now)
	got, err := call[control.History](t, a.listHistory, "/v1/history", nil)
	if err != nil {
		t.Fatal(err)
	}
	root := uint32(0)
	want := []control.Change{
		{ID: 2, Time: c.t, UID: &root, By: "root", Command: "allow remove", Removed: 1, Rules: control.RuleChange{Removed: 1}},
		{ID: 1, Time: c.t.Add(-time.Hour), UID: &root, By: "root", Command: "allow add", Why: "the new branch", Added: 2, Rules: control.RuleChange{Added: 2}},
	}
	if diff := cmp.Diff(want, got.Changes); diff != "" {
		t.Error(diff)
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/history/2", nil)
	r.SetPathValue("id", "2")
	v, err := a.showChange(r)
	if err != nil || len(v.(control.Change).Entries.Removed) != 1 {
		t.Errorf("change 2: %+v, %v", v, err)
	}
}

func TestUndoGoesBackStepByStepAndCanBeUndone(t *testing.T) {
	a, k := newTestAgent(t)
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	shared := allow("192.0.2.0/24")
	shared.Entries[0].Shared = true
	changed(t, a.addEntries, shared)
	changed(t, a.addEntries, allow("198.51.100.0/24"))
	changed(t, a.undoPolicy, control.Undo{})
	if diff := cmp.Diff([]string{"192.0.2.0/24"}, inForce(k)); diff != "" {
		t.Error("after one undo:", diff)
	}
	changed(t, a.undoPolicy, control.Undo{})
	if e := ownOf(a)[0]; e.Shared {
		t.Error("the changed entry is not as it was")
	}
	changed(t, a.undoPolicy, control.Undo{Change: 5}) // the second undo
	if e := ownOf(a)[0]; !e.Shared {
		t.Error("the undoing of an undo does not bring the change back")
	}
	if msg := refused(t, a.undoPolicy, control.Undo{Change: 3}, http.StatusConflict); !strings.Contains(msg, "undone already, by change 4") {
		t.Error(msg)
	}
	if msg := refused(t, a.undoPolicy, control.Undo{Change: 1}, http.StatusConflict); !strings.Contains(msg, "changed since") {
		t.Error(msg)
	}
	refused(t, a.undoPolicy, control.Undo{Change: 99}, http.StatusNotFound)
	if diff := cmp.Diff(stored(t, a), inForce(k)); diff != "" {
		t.Error("store and kernel:", diff)
	}
}

func ownOf(a *Agent) (out []policy.Entry) {
	for e := range a.Policy().All() {
		out = append(out, e)
	}
	return out
}

func TestUnconfirmedApplyRollsBackAlsoWhenTheAgentDies(t *testing.T) {
	for name, away := range map[string]time.Duration{"agent lives": 0, "agent was dead": time.Hour, "clock went back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			dir, c := t.TempDir(), &clock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
			a, k := agentAt(t, dir, c.now)
			changed(t, a.addEntries, allow("192.0.2.0/24"))
			ans := changed(t, a.applyPolicy, control.Apply{Name: "p", Text: "allow 203.0.113.0/24\n", Confirm: "2m"})
			if ans.ConfirmBy.IsZero() {
				t.Error("the answer does not say until when")
			}
			if msg := refused(t, a.addEntries, allow("10.0.0.0/8"), http.StatusConflict); !strings.Contains(msg, "policy confirm") {
				t.Error(msg)
			}
			if away != 0 {
				a.store.Close()
				c.t = c.t.Add(away)
				a, k = agentAt(t, dir, c.now)
			}
			if err := a.rollBack(t.Context()); err != nil {
				t.Fatal(err)
			}
			if away <= 0 {
				if diff := cmp.Diff([]string{"203.0.113.0/24"}, stored(t, a)); diff != "" {
					t.Error("before its time:", diff)
				}
				c.t = c.t.Add(2 * time.Minute)
				if err := a.rollBack(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff([]string{"192.0.2.0/24"}, stored(t, a)); diff != "" {
				t.Error("store:", diff)
			}
			if diff := cmp.Diff([]string{"192.0.2.0/24"}, inForce(k)); diff != "" {
				t.Error("kernel:", diff)
			}
			if msg := refused(t, a.confirmPolicy, struct{}{}, http.StatusConflict); !strings.Contains(msg, "too late: change 2 was rolled back") {
				t.Error(msg)
			}
		})
	}
}

func TestConfirmedApplyStays(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	a, k := agentAt(t, dir, c.now)
	changed(t, a.applyPolicy, control.Apply{Name: "p", Text: "allow 203.0.113.0/24\n", Confirm: "2m"})
	for _, want := range []uint64{1, 0} {
		if ans, err := call[control.Confirmed](t, a.confirmPolicy, "/", struct{}{}); err != nil || ans.Change != want {
			t.Errorf("confirmed %+v, %v, want change %d", ans, err, want)
		}
	}
	c.t = c.t.Add(time.Hour)
	if err := a.rollBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"203.0.113.0/24"}, inForce(k)); diff != "" {
		t.Error(diff)
	}
	// One that is undone by hand waits no more either.
	changed(t, a.applyPolicy, control.Apply{Name: "p", Text: "", Confirm: "2m"})
	changed(t, a.undoPolicy, control.Undo{})
	changed(t, a.addEntries, allow("10.0.0.0/8"))
}

func TestKernelRefusalLeavesNoHistoryAndNoWait(t *testing.T) {
	a, k := newTestAgent(t)
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	k.fail = errors.New("no memory")
	if _, err := call[control.Changed](t, a.applyPolicy, "/", control.Apply{Name: "p", Text: "", Confirm: "2m"}); err == nil {
		t.Fatal("no error")
	}
	k.fail = nil
	if got, err := call[control.History](t, a.listHistory, "/v1/history", nil); err != nil || len(got.Changes) != 1 {
		t.Errorf("history %+v, %v", got, err)
	}
	docs, _, err := store.Docs(t.Context(), a.store, history)
	if err != nil || len(docs) != 1 || a.waiting() != nil {
		t.Errorf("%d records in the store, waiting %v, %v", len(docs), a.waiting(), err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	const asked = 300
	root := uint32(0)
	var all []record
	for i := range uint64(asked + keepOwn + 1000) {
		r := record{Change: control.Change{ID: i + 1}, Size: 1}
		if i%2 == 0 {
			r.UID = &root
		}
		all = append(all, r)
	}
	if drop := tooOld(all, asked); len(all)-len(drop) != asked+keepOwn {
		t.Errorf("%d of %d stay", len(all)-len(drop), len(all))
	}
	all[len(all)-1].Size = 2 * keepChanges
	if drop := tooOld(all, asked); len(drop) != len(all)-1 {
		t.Errorf("beside one that fills the room %d stay, want none", len(all)-len(drop)-1)
	}
	a, _ := newTestAgent(t)
	var b store.Batch
	for i := range uint64(keepOwn) {
		r := record{Change: control.Change{ID: i + 1}}
		docs, err := r.docs([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		b.PutDocs = append(b.PutDocs, docs...)
		a.history = append(a.history, r)
	}
	if _, err := a.store.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	u := Update{By: "feed:f", Put: allow("192.0.2.0/24").Entries}
	u.Put[0].Origin, u.Put[0].Feed = policy.Feed, "f"
	if ans, err := a.Change(t.Context(), u); err != nil || ans.ID != keepOwn+1 {
		t.Fatalf("change %d, %v", ans.ID, err)
	}
	if err := a.trimHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	docs, _, err := store.Docs(t.Context(), a.store, changes)
	if err != nil || len(docs) != keepOwn || len(a.records()) != keepOwn {
		t.Errorf("%d and %d records stay, %v; want %d", len(docs), len(a.records()), err, keepOwn)
	}
}

func TestLongExpiredEntriesArePurged(t *testing.T) {
	c := &clock{time.Now().Round(0)}
	a, _ := agentAt(t, t.TempDir(), c.now)
	add := allow("192.0.2.0/24", "198.51.100.0/24")
	add.Entries[0].Expires = c.t.Add(time.Hour)
	changed(t, a.addEntries, add)
	c.t = c.t.Add(2 * time.Hour)
	a.tidy(t.Context())
	if got := stored(t, a); len(got) != 2 {
		t.Errorf("just expired, and gone: %v", got)
	}
	c.t = c.t.Add(keepExpired)
	a.tidy(t.Context())
	if diff := cmp.Diff([]string{"198.51.100.0/24"}, stored(t, a)); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedStoreGivesWayToLastGoodPolicy(t *testing.T) {
	dir := t.TempDir()
	a, _ := agentAt(t, dir, time.Now)
	changed(t, a.addEntries, allow("192.0.2.0/24", "2001:db8::/32"))
	if _, err := a.store.Commit(t.Context(), accountBatch("alice", []byte(`{"name":"alice"}`))); err != nil {
		t.Fatal(err)
	}
	a.tidy(t.Context())
	a.store.Close()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _ = agentAt(t, dir, time.Now)
	if diff := cmp.Diff([]string{"192.0.2.0/24", "2001:db8::/32"}, stored(t, a)); diff != "" {
		t.Error(diff)
	}
	if docs, err := a.Docs(t.Context(), accounts); err != nil || len(docs) != 1 {
		t.Errorf("accounts %v, %v", docs, err)
	}
	if msg := a.problems["store"]; !strings.Contains(msg, "last good policy is in force") {
		t.Errorf("status says %q", msg)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "store.db.damaged-*")); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
}

func TestDamagedStoreWithoutLastGoodPolicyStops(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	if err := os.WriteFile(path, make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAgent(Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err := a.openStore(t.Context(), path); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("error %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 65536 {
		t.Errorf("the damaged store was touched: %v, %v", info, err)
	}
}

func TestPeersFollowThePrecedence(t *testing.T) {
	a, _ := newTestAgent(t)
	add := allow("192.0.2.0/24", "192.0.2.128/25", "192.0.2.64/26", "203.0.113.0/24", "198.51.100.7/32")
	add.Entries[0].Relay, add.Entries[0].Note = true, "office"
	add.Entries[2].Relay = true
	add.Entries[4].Relay, add.Entries[4].Expires = true, time.Now().Add(time.Hour)
	changed(t, a.addEntries, add)
	want := []Peer{
		{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Name: "office"}, {Prefix: netip.MustParsePrefix("192.0.2.64/26")}, {Prefix: netip.MustParsePrefix("198.51.100.7/32")},
	}
	opt := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, a.peers(), opt); diff != "" {
		t.Error(diff)
	}
	a.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if diff := cmp.Diff(want[:2], a.peers(), opt); diff != "" {
		t.Error("after expiry:", diff)
	}
}

func TestFullDiskChangesNothing(t *testing.T) {
	dir := smallDisk(t)
	a, k := agentAt(t, dir, time.Now)
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	big := control.Add{}
	for i := range 5000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		big.Entries = append(big.Entries, policy.Entry{Action: policy.Allow, Prefix: p.Masked(), Note: strings.Repeat("x", 200)})
	}
	_, err := call[control.Changed](t, a.addEntries, "/", big)
	if err == nil || !strings.Contains(err.Error(), "nothing changed") {
		t.Fatalf("error %v", err)
	}
	for name, got := range map[string][]string{"kernel": inForce(k), "store": stored(t, a)} {
		if diff := cmp.Diff([]string{"192.0.2.0/24"}, got); diff != "" {
			t.Error(name, diff)
		}
	}
	changed(t, a.addEntries, allow("198.51.100.0/24"))
	if d := a.Policy().Decide(time.Now(), netip.MustParseAddr("198.51.100.1"), rule.Port{Number: 25, Default: rule.Drop}); d.Verdict != rule.Pass {
		t.Error("a small change after a large one does not fit any more")
	}
}
