package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

func event(source string, port uint16, reason string, at time.Time, count uint32) control.Event {
	return control.Event{Time: at, Source: netip.MustParseAddr(source), Port: port, Reason: reason, Count: count}
}

func idOf(t *testing.T, a *Agent, prefix string) uint64 {
	t.Helper()
	for e := range a.Policy().Within(netip.MustParsePrefix(prefix)) {
		return e.ID()
	}
	t.Fatalf("no entry %s", prefix)
	return 0
}

// admit has the kernel count connections that the agent has not read yet.
func admit(t *testing.T, k *fakeKernel, a *Agent, prefix, source string, admitted uint64) {
	t.Helper()
	id := idOf(t, a, prefix)
	if k.hits == nil {
		k.hits = map[uint64]loader.Hit{}
	}
	k.hits[id] = loader.Hit{Count: k.hits[id].Count + admitted, Last: a.now()}
	k.sources = append(k.sources, loader.Source{EntryID: id, Prefix: netip.MustParsePrefix(source), Admitted: admitted, Open: 1, Peak: 2})
}

func pass(t *testing.T, k *fakeKernel, a *Agent, prefix, source string, admitted uint64) {
	t.Helper()
	admit(t, k, a, prefix, source, admitted)
	if err := a.readUse(); err != nil {
		t.Fatal(err)
	}
}

func TestDryRunTellsTheImpact(t *testing.T) {
	a, k := newTestAgent(t)
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	pass(t, k, a, "192.0.2.0/24", "192.0.2.2/32", 4)
	admit(t, k, a, "192.0.2.0/24", "192.0.2.1/32", 1200)
	a.note(event("198.51.100.9", 25, "no-entry", time.Now(), 40))
	a.note(event("192.0.2.1", 25, "rate-cap", time.Now(), 5))
	ans := changed(t, a.applyPolicy, control.Apply{Name: "p", Text: "allow 192.0.2.2\nallow 198.51.100.0/24\n", DryRun: true})
	cuts, admits := ans.Impact.Cuts, ans.Impact.Admits
	if cuts.Sources != 1 || cuts.Attempts != 1200 || cuts.Top[0].Source.String() != "192.0.2.1/32" || len(cuts.Top[0].Ports) != 3 {
		t.Errorf("cuts %+v", cuts)
	}
	if admits.Sources != 1 || admits.Attempts != 40 || !slices.Equal(admits.Top[0].Ports, []uint16{25}) {
		t.Errorf("admits %+v", admits)
	}
	if ans := changed(t, a.addEntries, allow("203.0.113.0/24")); ans.Impact != nil {
		t.Error("a change that is made waits for what it would have done")
	}
}

func TestHitsSurviveKernelAndAgent(t *testing.T) {
	dir := t.TempDir()
	a, k := agentAt(t, dir, time.Now)
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	pass(t, k, a, "192.0.2.0/24", "192.0.2.1/32", 7)
	if err := a.saveUse(); err != nil {
		t.Fatal(err)
	}
	a.store.Close()
	a, k = agentAt(t, dir, time.Now) // with a filter that was loaded anew
	pass(t, k, a, "192.0.2.0/24", "192.0.2.1/32", 3)
	ans, err := call[control.Entries](t, a.listEntries, "/v1/entries", nil)
	if err != nil || len(ans.Entries) != 1 || ans.Entries[0].Hits != 10 {
		t.Errorf("%+v, %v; want 10 hits", ans, err)
	}
}

func TestSourcesAreRanked(t *testing.T) {
	a, k := newTestAgent(t)
	two := allow("192.0.2.0/24")
	two.Entries[0].Ports = []uint16{465, 587}
	changed(t, a.addEntries, two)
	pass(t, k, a, "192.0.2.0/24", "192.0.2.1/32", 5)
	a.note(event("198.51.100.9", 25, "no-entry", time.Now(), 40))
	a.note(event("2001:db8::9", 587, "no-entry", time.Now(), 1))
	a.note(event("2001:db8::a", 587, "denied", time.Now(), 1)) // of the same /64
	ans, err := call[control.Sources](t, a.listSources, "/v1/sources?top=2", nil)
	if err != nil || len(ans.Sources) != 2 || ans.Others != 1 {
		t.Fatalf("%+v, %v", ans, err)
	}
	if s := ans.Sources[0]; s.Source.String() != "198.51.100.9/32" || s.Dropped != 40 || s.Reasons["no-entry"] != 40 {
		t.Errorf("first %+v", s)
	}
	if s := ans.Sources[1]; s.Passed != 5 || s.Open != 1 || s.Peak != 2 || !slices.Equal(s.Ports, []uint16{465, 587}) {
		t.Errorf("second %+v", s)
	}
	ans, err = call[control.Sources](t, a.listSources, "/v1/sources?by=open&top=0", nil)
	if err != nil || ans.Sources[0].Source.String() != "192.0.2.1/32" || ans.Sources[2].Source.String() != "2001:db8::/64" || ans.Sources[2].Dropped != 2 {
		t.Errorf("by open connections: %+v, %v", ans, err)
	}
	for _, bad := range []string{"top=x", "since=soon", "by=name"} {
		if _, err := call[control.Sources](t, a.listSources, "/v1/sources?"+bad, nil); control.StatusOf(err) != 400 {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestLearnProposesWhatNoEntryCovers(t *testing.T) {
	a, _ := newTestAgent(t)
	changed(t, a.addEntries, allow("203.0.113.0/24"))
	now := time.Now()
	for _, host := range []string{"1", "2", "3", "4"} {
		a.note(event("198.51.100."+host, 587, "no-entry", now, 3))
	}
	observed := event("192.0.2.7", 25, "no-entry", now, 2)
	observed.Observed = true
	a.note(observed)
	a.note(event("203.0.113.5", 25, "no-entry", now.Add(-time.Minute), 9)) // let in since
	a.note(event("192.0.2.66", 25, "denied", now, 9))
	ans, err := call[control.Learned](t, a.learn, "/v1/learn", nil)
	if err != nil || len(ans.Proposals) != 2 {
		t.Fatalf("%+v, %v", ans.Proposals, err)
	}
	if e := ans.Proposals[0].Entry; e.Prefix.String() != "198.51.100.0/24" || !slices.Equal(e.Ports, []uint16{587}) || ans.Proposals[0].Attempts != 12 {
		t.Errorf("first %+v", ans.Proposals[0])
	}
	if e := ans.Proposals[1].Entry; e.Prefix.String() != "192.0.2.7/32" {
		t.Errorf("second %+v", e)
	}
	if one, err := call[control.Learned](t, a.learn, "/v1/learn?port=25", nil); err != nil || len(one.Proposals) != 1 || one.Proposals[0].Entry.Prefix.String() != "192.0.2.7/32" {
		t.Errorf("of port 25: %+v, %v", one.Proposals, err)
	}
	if _, err := call[control.Learned](t, a.learn, "/v1/learn?port=26", nil); control.StatusOf(err) != 400 {
		t.Errorf("of a port that nobody protects: %v", err)
	}
	text := ans.Policy + ans.Proposals[0].Entry.Line() + "\n" + ans.Proposals[1].Entry.Line() + "\n"
	if got := changed(t, a.applyPolicy, control.Apply{Name: "learned", Text: text}); len(got.Added) != 2 || got.Unchanged != 1 {
		t.Errorf("applied: %+v", got)
	}
}

func TestReviewFindsWhatToMend(t *testing.T) {
	c := &clock{time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)}
	a, k := agentAt(t, t.TempDir(), c.now)
	add := allow("10.0.0.0/16", "172.16.0.0/16", "172.16.5.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
	add.Entries[0].Ports = []uint16{587}
	add.Entries[0].Note = "Acme's"
	add.Entries[4].Expires = c.t.AddDate(0, 0, 43)
	add.Entries[5].Expires = c.t.AddDate(0, 0, 30)
	changed(t, a.addEntries, add)
	e := allow("192.0.2.0/24").Entries[0]
	e.Origin = policy.File
	if _, err := a.Change(t.Context(), Update{By: "root", Put: []policy.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	soonGone := derived("soon.example", "", "192.88.99.9/32", 25)
	soonGone.Expires = c.t.AddDate(0, 0, 45)
	made(t, a, Update{Put: []policy.Entry{derived("idle.example", "", "192.88.99.1/32"), derived("idle.example", "", "192.88.99.2/32"),
		derived("used.example", "", "192.88.99.3/32"), derived("used.example", "", "192.88.99.4/32"), soonGone}})
	c.t = c.t.AddDate(0, 0, 40)
	pass(t, k, a, "192.88.99.4/32", "192.88.99.4/32", 3)
	for _, s := range []string{"10.0.1.1/32", "10.0.1.2/32", "10.0.9.1/32"} {
		pass(t, k, a, "10.0.0.0/16", s, 3)
	}
	pass(t, k, a, "192.0.2.0/24", "192.0.2.1/32", 3)
	ans, err := call[control.Review](t, a.review, "/v1/review?days=30", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range ans.Findings {
		got = append(got, f.Kind+" "+f.Entry.Prefix.String()+": "+f.Command)
	}
	want := []string{
		`wide 10.0.0.0/16: synward allow add 10.0.1.0/24 10.0.9.0/24 --ports 587 --note 'Acme'\''s' && synward allow remove 10.0.0.0/16`,
		`unused 172.16.0.0/16: synward allow remove 172.16.0.0/16`,
		`shadowed 172.16.5.0/24: synward allow remove 172.16.5.0/24`,
		`duplicate 192.0.2.0/24: synward allow remove 192.0.2.0/24 --origin file`,
		`expiring 198.51.100.0/24: synward allow add 198.51.100.0/24 --ttl 90d`,
		`unused 198.51.100.0/24: synward allow remove 198.51.100.0/24`,
		`expired 203.0.113.0/24: synward allow remove 203.0.113.0/24`,
		`unused 192.88.99.1/32: synward allow remove idle.example`,
		`expiring 192.88.99.9/32: synward allow add soon.example --ports 25 --ttl 90d`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// What comes of an export has no duplicate.
	exported, err := call[map[string]string](t, a.exportPolicy, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := changed(t, a.applyPolicy, control.Apply{Name: "p", Text: exported["text"]}); len(c.Removed) != 1 || len(c.Added)+len(c.Changed) != 0 {
		t.Errorf("export | apply: %+v", c)
	}
}

// streamed are the lines of an answer.
func streamed(t *testing.T, a *Agent, query string) (out []control.Event) {
	t.Helper()
	v, err := a.listEvents(httptest.NewRequest("GET", "/v1/events?"+query, nil))
	if err != nil {
		t.Fatal(err)
	}
	err = v.(control.Stream)(t.Context(), func(v any) error { out = append(out, v.(control.Event)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEventsSurviveAndAreFiltered(t *testing.T) {
	dir := t.TempDir()
	a, _ := agentAt(t, dir, time.Now)
	now := time.Now()
	a.note(event("192.0.2.1", 25, "no-entry", now.Add(-2*time.Hour), 1))
	a.note(event("192.0.2.2", 587, "denied", now.Add(-time.Minute), 1))
	a.store.Close()
	a, _ = agentAt(t, dir, time.Now)
	a.note(event("2001:db8::5", 25, "no-entry", now, 1))
	for query, want := range map[string]int{
		"": 3, "since=1h": 2, "until=1h": 1, "source=192.0.2.0/24": 2, "reason=denied": 1, "reason=denied,no-entry": 3, "port=25": 2, "port=25&since=1h": 1,
	} {
		if got := streamed(t, a, query); len(got) != want {
			t.Errorf("%q: %d events, want %d", query, len(got), want)
		}
	}
	all := streamed(t, a, "")
	if all[0].Allow != "synward allow add 192.0.2.1/32 --ports 25" || all[1].Allow != "" || all[2].Allow != "synward allow add 2001:db8::/64 --ports 25" {
		t.Errorf("commands %q, %q, %q", all[0].Allow, all[1].Allow, all[2].Allow)
	}
	for _, bad := range []string{"reason=because", "port=x", "port=70000", "since=x", "source=x"} {
		if _, err := a.listEvents(httptest.NewRequest("GET", "/v1/events?"+bad, nil)); control.StatusOf(err) != 400 {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestFollowTellsEachEventOnce(t *testing.T) {
	a, _ := newTestAgent(t)
	a.note(event("192.0.2.1", 25, "no-entry", time.Now(), 1))
	v, err := a.listEvents(httptest.NewRequest("GET", "/v1/events?follow=1", nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	enough := errors.New("enough")
	err = v.(control.Stream)(ctx, func(v any) error {
		got = append(got, v.(control.Event).Source.String())
		if len(got) == 1 {
			a.note(event("192.0.2.2", 25, "no-entry", time.Now(), 1))
			a.note(event("192.0.2.3", 25, "no-entry", time.Now(), 1))
		}
		if len(got) == 3 {
			return enough
		}
		return nil
	})
	cancel()
	if !errors.Is(err, enough) || !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDamagedJournalIsSaidAndLeftOut(t *testing.T) {
	dir := t.TempDir()
	a, _ := agentAt(t, dir, time.Now)
	a.note(event("192.0.2.1", 25, "no-entry", time.Now(), 1))
	if err := a.saveUse(); err != nil {
		t.Fatal(err)
	}
	a.store.Close()
	files, err := os.ReadDir(dir + "/journal")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(dir+"/journal/"+f.Name(), []byte("{nonsense\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, _ = agentAt(t, dir, time.Now)
	if a.problems["journal"] == "" {
		t.Error("nothing is said of it")
	}
	changed(t, a.addEntries, allow("192.0.2.0/24"))
	a.note(event("192.0.2.2", 25, "no-entry", time.Now(), 1))
	if got := streamed(t, a, ""); len(got) != 1 {
		b, _ := json.Marshal(got)
		t.Errorf("events %s", b)
	}
}
