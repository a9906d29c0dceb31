package agent

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// interval is how often the agent compares the kernel with the policy though
// nothing has asked for it.
const interval = 30 * time.Second

// ease is how much longer the agent leaves the kernel's rules alone than a
// comparison takes: one of a million prefixes keeps a core busy for seconds, and
// changes wait for it. perEntry is what one takes at least. pause is what passes,
// an entry, between a whole write and what follows from it.
const (
	ease     = 200
	perEntry = 5 * time.Microsecond
	pause    = 3 * time.Microsecond
)

// rested says whether the kernel's rules may be compared: not too soon after
// they have been written, or compared, whole.
func (a *Agent) rested() bool {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.RLock()
	defer a.mu.RUnlock()
	return time.Since(a.whole) > max(a.took, time.Duration(a.set.Len())*perEntry)*ease
}

// quietFrom is when what follows from a whole write may begin. Who has brought a
// million entries often adds one more right after, and that is not to wait for it.
func (a *Agent) quietFrom() time.Time {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.whole.Add(time.Duration(a.set.Len()) * pause)
}

// wroteWhole notes that the kernel's rules, of a moment, are written or compared as
// a whole.
func (a *Agent) wroteWhole(of time.Time) {
	a.compiled = of
	a.mu.Lock()
	defer a.mu.Unlock()
	a.whole, a.lastSync = time.Now(), a.now()
}

// reconcileLoop makes the kernel equal the policy: what a change has not brought
// there, what ends when an entry expires, and all of it from time to time.
func (a *Agent) reconcileLoop(ctx context.Context) error {
	var relieved uint64
	for clock := newStepClock(); ; {
		wait := a.untilSave()
		set, _ := a.state()
		if next := set.NextExpiry(a.now()); !next.IsZero() {
			// A little late, so that the entry has expired by every clock.
			wait = min(wait, max(next.Sub(a.now())+50*time.Millisecond, 0))
		}
		if quiet := time.Until(a.quietFrom()); quiet > 0 {
			wait = min(wait, quiet)
		}
		if p := a.waiting(); p != nil {
			wait = min(wait, max(p.Deadline.Sub(a.now()), 0))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			a.problem("last good policy", a.saveLastGood(true))
			return nil
		case <-a.wake:
			timer.Stop()
		case <-a.relink:
			timer.Stop() // an interface changed: the rules have not
		case <-timer.C:
		}
		a.problem("confirmation", a.rollBack(ctx))
		a.expire()
		if clock.stepped() || a.rested() {
			a.reconcile()
		} else {
			a.reattach()
		}
		a.tidy(ctx)
		relieved = a.relieve(relieved)
	}
}

// manyEntries is how many a change leaves hundreds of megabytes behind with.
const manyEntries = 50_000

// relieve gives memory back after a large change; the runtime would take minutes.
// It returns the last change that it has seen, which it is given the next time.
func (a *Agent) relieve(seen uint64) uint64 {
	if time.Now().Before(a.quietFrom()) {
		return seen
	}
	all := a.records()
	last := seen
	large := false
	for _, r := range slices.Backward(all) {
		if r.ID <= seen {
			break
		}
		last = max(last, r.ID)
		large = large || r.Added+r.Changed+r.Removed >= manyEntries
	}
	if large {
		debug.FreeOSMemory()
	}
	return last
}

// tidy does what follows from changes and from time, and may fail without harm.
func (a *Agent) tidy(ctx context.Context) {
	a.pushPeers(ctx, nil)
	a.purge(ctx)
	a.problem("history", a.trimHistory(ctx))
	a.problem("last good policy", a.saveLastGood(false))
}

// stepClock notices when the wall clock is set, which moves every expiry.
type stepClock struct{ last time.Time }

func newStepClock() *stepClock { return &stepClock{time.Now()} }

// stepped says whether the clock has been set since the last time.
func (c *stepClock) stepped() bool {
	now := time.Now()
	drift := now.Round(0).Sub(c.last.Round(0)) - now.Sub(c.last) // Round takes the monotonic reading off
	c.last = now
	return drift.Abs() > time.Second
}

// expire takes out of the rules what has ended since the last look. The kernel
// has let go of it by itself; what it has room for is more expiries than it knows.
func (a *Agent) expire() {
	a.changing.Lock()
	defer a.changing.Unlock()
	set, p := a.state()
	now := a.now()
	var ended []netip.Prefix
	for e := range set.Having(policy.Expires) {
		if e.Expired(now) && !e.Expired(a.compiled) {
			ended = append(ended, e.Prefix)
		}
	}
	if len(ended) == 0 {
		return
	}
	if len(ended) <= fewChanges {
		if _, err := a.kernel.Update(policy.Recompile(set, set, p.ports, p.caps, now, ended)); err == nil {
			a.compiled = now
			return
		}
	}
	a.problem("rules", a.resync(set, p))
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
	now, began := a.now(), time.Now()
	ch, err := a.kernel.Sync(policy.Compile(set, p.ports, p.caps, now))
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	a.took = time.Since(began)
	a.wroteWhole(now)
	if ch != (loader.Change{}) {
		a.log.Info("rules mended", "added", ch.Added, "updated", ch.Updated, "removed", ch.Removed)
	}
	return nil
}
