package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// A host that boots with a clock that is years off, or whose clock is set while
// the agent runs: what has an end follows the clock, the rest stays, and
// nothing is lost for when the clock is right again.
func TestAClockThatJumpsLosesNothing(t *testing.T) {
	right := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	both, one := []string{"192.0.2.0/24", "198.51.100.0/24"}, []string{"198.51.100.0/24"}
	for name, c := range map[string]struct {
		off  time.Duration
		want []string
	}{"years ahead": {2 * 365 * 24 * time.Hour, one}, "years back": {-2 * 365 * 24 * time.Hour, both}, "at the very end": {time.Hour, one}} {
		for _, boots := range []bool{true, false} {
			dir, clk := t.TempDir(), &clock{right}
			a, k := agentAt(t, dir, clk.now)
			add := allow("192.0.2.0/24", "198.51.100.0/24")
			add.Entries[0].Expires = right.Add(time.Hour)
			changed(t, a.addEntries, add)
			clk.t = right.Add(c.off)
			if boots {
				a.store.Close()
				a, k = agentAt(t, dir, clk.now)
				a.tidy(t.Context())
			}
			a.reconcile()
			if diff := cmp.Diff(c.want, inForce(k)); diff != "" {
				t.Errorf("%s, boots %v: %s", name, boots, diff)
			}
			clk.t = right.Add(time.Minute)
			a.reconcile()
			if diff := cmp.Diff(both, inForce(k)); diff != "" {
				t.Errorf("%s and right again, boots %v: %s", name, boots, diff)
			}
			changed(t, a.removeEntries, control.Remove{Action: policy.Allow, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
			if diff := cmp.Diff([]string{"192.0.2.0/24"}, stored(t, a)); diff != "" {
				t.Errorf("%s, then a change, boots %v: %s", name, boots, diff)
			}
		}
	}
}
