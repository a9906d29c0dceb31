package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// grownOld is by how much age makes a policy older.
const grownOld = 60 * 24 * time.Hour

// age [PREFIX SOURCE…]: while no agent runs, makes all entries 60 days older.
// Those whose note begins with "over" have expired a day ago, those with "used"
// have been hit today; so has PREFIX, by the sources.
func age(ts *testscript.TestScript, _ bool, args []string) {
	state, now := ts.MkAbs("state"), time.Now()
	s, err := store.OpenBolt(filepath.Join(state, "store.db"))
	ts.Check(err)
	entries, _, err := store.Entries(context.Background(), s)
	ts.Check(err)
	hits := map[uint64]journal.Use{}
	attempts, err := journal.OpenAttempts(filepath.Join(state, "journal"), 30, 1000, now)
	ts.Check(err)
	for i := range entries {
		e := &entries[i]
		e.At = e.At.Add(-grownOld)
		if strings.HasPrefix(e.Note, "over") {
			e.Expires = now.Add(-24 * time.Hour).UTC().Truncate(time.Second)
		}
		wide := len(args) > 0 && e.Prefix.String() == args[0]
		if wide || strings.HasPrefix(e.Note, "used") {
			hits[e.ID()] = journal.Use{Count: 3, Last: now}
		}
		for _, src := range args[min(1, len(args)):] {
			if p := netip.MustParsePrefix(src); wide {
				ts.Check(attempts.Add(journal.Kind{Source: p, Passed: true, Reason: "allowed", Entry: e.ID()}, 3, now))
			}
		}
	}
	_, err = s.Commit(context.Background(), store.Batch{Put: entries})
	ts.Check(err)
	ts.Check(s.Close())
	ts.Check(attempts.Save(now))
	uses, err := journal.OpenUses(filepath.Join(state, "journal", "uses.json"), now.Add(-grownOld))
	ts.Check(err)
	uses.Hits(hits, func(uint64) bool { return true })
	ts.Check(uses.Save())
}

// mend KIND…: runs the first command that review prints, sees its finding gone,
// and so on until there is nothing to mend. Each kind must have come up so often
// as it is named.
func mend(ts *testscript.TestScript, _ bool, kinds []string) {
	var mended []string
	for len(mended) <= len(kinds) {
		findings := reviewed(ts)
		if len(findings) == 0 {
			break
		}
		f := findings[0]
		ts.Check(ts.Exec("synward", "--config", "c.toml", "review"))
		_, printed, _ := strings.Cut(ts.ReadFile("stdout"), "           $ ")
		printed, _, _ = strings.Cut(printed, "\n")
		ts.Check(ts.Exec("sh", "-c", printed))
		if slices.ContainsFunc(reviewed(ts), func(o control.Finding) bool { return o.Kind == f.Kind && sameSubject(o.Entry, f.Entry) }) {
			ts.Fatalf("%s is %s still after: %s", f.Entry.Line(), f.Kind, f.Command)
		}
		mended = append(mended, f.Kind)
	}
	slices.Sort(kinds)
	slices.Sort(mended)
	if got, want := fmt.Sprint(mended), fmt.Sprint(kinds); got != want {
		ts.Fatalf("mended %s, want %s", got, want)
	}
}

func sameSubject(a, b policy.Entry) bool {
	if a.Name != "" {
		return a.Name == b.Name && a.Action == b.Action
	}
	return a.Key() == b.Key()
}

func reviewed(ts *testscript.TestScript) []control.Finding {
	var r control.Review
	ts.Check(ts.Exec("synward", "--config", "c.toml", "review", "--json"))
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &r))
	return r.Findings
}
