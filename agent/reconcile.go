package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// interval is how often the agent compares the kernel with the policy though
// nothing has asked for it.
const interval = 30 * time.Second

// ease is how much longer the agent leaves the kernel's rules alone than a
// comparison takes: one of a million prefixes keeps a core busy for seconds, and
// changes wait for it.
const ease = 200

// reconcileLoop makes the kernel equal the policy: when something has changed,
// when an entry expires, and from time to time.
func (a *Agent) reconcileLoop(ctx context.Context) error {
	var rested time.Time // when the next comparison may come unasked
	for {
		wait, asked := interval, false
		set, _ := a.state()
		if next := set.NextExpiry(a.now()); !next.IsZero() {
			// A little late, so that the entry has expired by every clock.
			wait = min(wait, max(next.Sub(a.now())+50*time.Millisecond, 0))
		}
		if p := a.waiting(); p != nil {
			wait = min(wait, max(p.Deadline.Sub(a.now()), 0))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-a.wake:
			timer.Stop()
			asked = true
		case <-a.relink:
			timer.Stop() // an interface changed: the rules have not
		case <-timer.C:
			asked = wait < interval
		}
		a.problem("confirmation", a.rollBack(ctx))
		if began := time.Now(); asked || began.After(rested) {
			a.reconcile()
			rested = began.Add(time.Since(began) * ease)
		} else {
			a.reattach()
		}
		a.tidy(ctx)
	}
}

// tidy does what follows from changes and from time, and may fail without harm.
func (a *Agent) tidy(ctx context.Context) {
	a.pushPeers(ctx, nil)
	a.purge(ctx)
	a.problem("history", a.trimHistory(ctx))
	a.problem("last good policy", a.saveLastGood())
}

// poke asks for a reconcile soon.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) reconcile() {
	a.changing.Lock()
	defer a.changing.Unlock()
	set, plan := a.state()
	a.problem("rules", a.resync(set, plan))
	a.attachAll(plan.filter)
}

// reattach is a reconcile of the interfaces alone.
func (a *Agent) reattach() {
	a.changing.Lock()
	defer a.changing.Unlock()
	_, plan := a.state()
	a.attachAll(plan.filter)
}

// resync writes a set's rules.
func (a *Agent) resync(set *policy.Set, p plan) error {
	ch, err := a.kernel.Sync(policy.Compile(set, p.ports, p.caps, a.now()))
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	a.mu.Lock()
	a.lastSync = a.now()
	a.mu.Unlock()
	if ch != (loader.Change{}) {
		a.log.Info("rules mended", "added", ch.Added, "updated", ch.Updated, "removed", ch.Removed)
	}
	return nil
}
