package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What has ended leaves the rules, and nothing else is written for it.
func TestWhatHasEndedLeavesTheRules(t *testing.T) {
	a, k := newTestAgent(t)
	now := time.Now()
	a.now = func() time.Time { return now }
	add := allow("192.0.2.0/24", "198.51.100.0/24")
	add.Entries[0].Expires = now.Add(time.Minute)
	changed(t, a.addEntries, add)
	a.expire()
	if k.updates != 0 || len(k.prefixes) != 2 {
		t.Errorf("before its end: %d updates, %v in force", k.updates, inForce(k))
	}
	now = now.Add(2 * time.Minute)
	for range 2 { // once is enough
		a.expire()
		if diff := cmp.Diff([]string{"198.51.100.0/24"}, inForce(k)); diff != "" || k.updates != 1 {
			t.Errorf("after its end: %d updates, %s", k.updates, diff)
		}
	}
}
