package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// change is the one way of the policy: fn edits a copy, the store takes it,
// the kernel takes it, and only then does it count. Whatever fails, nothing
// has changed. It returns once the change is in force.
func (a *Agent) change(ctx context.Context, in intent, fn func(*edit, plan) error) (control.Changed, error) {
	if in.dryRun { // so that its impact knows who came a moment ago
		a.problem("uses", a.readUse())
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if p := a.waiting(); p != nil && in.mayWait() {
		return control.Changed{}, control.Errorf(http.StatusConflict,
			"change %d waits for its confirmation; nothing changed: keep it with synward policy confirm, or end it with synward policy undo", p.Change)
	}
	set, plan := a.state()
	e := newEdit(set)
	if err := fn(e, plan); err != nil {
		return control.Changed{}, err
	}
	e.settle()
	ans := control.Changed{
		DryRun: in.dryRun, Added: e.changes.Added, Changed: e.changes.Changed, Removed: e.changes.Removed,
		Unchanged: e.unchanged, Missing: e.missing, Warnings: e.warnings,
	}
	cut, err := a.cutOff(set, e.set, plan)
	if err != nil {
		ans.Warnings = append(ans.Warnings, err.Error())
	}
	ans.CutOff = cut
	ans.Shorten(in.show)
	if in.dryRun {
		if ans.Impact, err = a.impact(e, plan); err != nil {
			ans.Warnings = append(ans.Warnings, err.Error())
		}
		return ans, nil
	}
	if !e.empty() {
		if err := a.commit(ctx, in, e, set, plan, &ans); err != nil {
			return control.Changed{}, err
		}
	}
	if in.kill {
		a.kill(&ans)
	}
	return ans, nil
}

// commit brings an edit into the store and the kernel.
func (a *Agent) commit(ctx context.Context, in intent, e *edit, was *policy.Set, p plan, ans *control.Changed) error {
	rec, err := a.record(in, e, was, p)
	if err != nil {
		return err
	}
	_, err = a.store.Commit(ctx, e.batch())
	if ctx.Err() == nil { // who asked is still there: it is the disk
		a.problem("last change", err)
	}
	if err != nil {
		return fmt.Errorf("nothing changed: write the store: %w", err)
	}
	ch, err := a.write(was, e, p)
	a.announce(nil)
	if err != nil {
		err = fmt.Errorf("nothing changed: write the rules: %w", err)
		// The caller may be gone; what was begun is put back all the same.
		if _, uerr := a.store.Commit(context.WithoutCancel(ctx), e.undo()); uerr != nil {
			err = errors.Join(err, fmt.Errorf("and the store could not be put back: %w", uerr))
		}
		return errors.Join(err, a.resync(was, p))
	}
	a.mu.Lock()
	a.set, a.lastSync = e.set, a.now()
	a.mu.Unlock()
	if !e.changes.Empty() {
		a.remember(rec)
		ans.ID, ans.ConfirmBy = rec.ID, rec.ConfirmBy
		ans.Rules = &control.RuleChange{Added: ch.Added, Updated: ch.Updated, Removed: ch.Removed}
		a.log.Info("policy changed", "change", rec.ID, "command", in.command, "by", in.by, "why", in.why,
			"added", rec.Added, "changed", rec.Changed, "removed", rec.Removed)
	}
	a.pushPeers(ctx, ans)
	a.poke() // for the next expiry, and what is to be tidied up
	return nil
}

// A change of one prefix goes into the kernel's rules as they are. One of several
// replaces them whole, so that no packet and no kill -9 meets half of it. Where
// that would take seconds, few changes of many entries go in behind the index,
// which shows them at once; where it cannot, as with IPv6 beyond /64, the kernel's
// rules are replaced all the same.
const (
	fewChanges  = 1000
	replaceUpTo = 100_000
)

// write brings an edit into the kernel: what differs, where that is little and
// the kernel's rules are known, else the whole.
func (a *Agent) write(was *policy.Set, e *edit, p plan) (loader.Change, error) {
	if e.changes.Empty() {
		return loader.Change{}, nil
	}
	now := a.now()
	a.announce(e.set)
	changed := e.changes.Prefixes()
	if len(changed) == 1 || len(changed) <= fewChanges && e.set.Len() > replaceUpTo {
		ch, err := a.kernel.Update(policy.Recompile(was, e.set, p.ports, p.caps, now, changed))
		if err == nil {
			return ch, nil
		}
		if !errors.Is(err, loader.ErrNeedsSync) {
			a.log.Warn("rules not updated; writing all of them", "error", err)
		}
	}
	if _, err := a.kernel.Replace(policy.Compile(e.set, p.ports, p.caps, now)); err != nil {
		return loader.Change{}, err
	}
	a.wroteWhole(now)
	return loader.Change{Added: len(e.changes.Added), Updated: len(e.changes.Changed), Removed: len(e.changes.Removed)}, nil
}

// announce says for explain which set the kernel is being told of; nil = none.
func (a *Agent) announce(set *policy.Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.coming = set
}

// cutOff are the open connections whose source passes by the one set and no
// longer by the other.
func (a *Agent) cutOff(from, to *policy.Set, p plan) ([]control.Connection, error) {
	conns, err := connections(p.numbers())
	if err != nil {
		return nil, err
	}
	now := a.now()
	var out []control.Connection
	for _, c := range conns {
		port, ok := p.port(c.Local.Port())
		src := c.Source.Addr()
		if ok && from.Decide(now, src, port).Verdict == rule.Pass && to.Decide(now, src, port).Verdict == rule.Drop {
			out = append(out, c)
		}
	}
	return out, nil
}

func (p plan) port(number uint16) (rule.Port, bool) {
	for _, port := range p.ports {
		if port.Number == number {
			return port, true
		}
	}
	return rule.Port{}, false
}

// kill ends the connections that a change has cut off.
func (a *Agent) kill(ans *control.Changed) {
	for _, c := range ans.CutOff {
		if err := destroy(c); err != nil {
			ans.Warnings = append(ans.Warnings, fmt.Sprintf("connection of %s not ended: %v", c.Source, err))
			continue
		}
		ans.Killed++
	}
}

// addEntries answers POST /v1/entries.
func (a *Agent) addEntries(r *http.Request) (any, error) {
	var req control.Add
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	if len(req.Entries) == 0 {
		return nil, control.Errorf(http.StatusBadRequest, "no entries given")
	}
	if req.Command == "" {
		req.Command = string(req.Entries[0].Action) + " add"
	}
	in := asked(r, req.Command, req.Why, req.DryRun, req.Kill)
	return a.change(r.Context(), in, func(e *edit, p plan) error {
		now := a.now()
		for _, wish := range req.Entries {
			wish.Origin, wish.Feed, wish.By, wish.At = policy.Operator, "", in.by, now
			entry, warning, err := policy.New(wish, p.numbers())
			if err != nil {
				return control.Errorf(http.StatusBadRequest, "%s %s: %w; nothing changed", wish.Action, wish.Prefix, err)
			}
			if warning != "" {
				e.warnings = append(e.warnings, warning)
			}
			if entry.Expired(now) {
				return control.Errorf(http.StatusBadRequest, "%s: it would have expired already; nothing changed", entry.Prefix)
			}
			if err := e.set.Conflict(now, entry); err != nil {
				return control.Errorf(http.StatusConflict, "%w; nothing changed", err)
			}
			e.put(entry)
		}
		return nil
	})
}

// removeEntries answers POST /v1/entries/remove.
func (a *Agent) removeEntries(r *http.Request) (any, error) {
	var req control.Remove
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	in := asked(r, string(req.Action)+" remove", req.Why, req.DryRun, req.Kill)
	origins := []policy.Origin{policy.Operator, policy.File, policy.Learned}
	if req.Origin != "" {
		if !slices.Contains(origins, req.Origin) {
			return nil, control.Errorf(http.StatusBadRequest, "origin %q: write operator, file or learned; nothing changed", req.Origin)
		}
		origins = []policy.Origin{req.Origin}
	}
	return a.change(r.Context(), in, func(e *edit, _ plan) error {
		for _, p := range req.Prefixes {
			gone := false
			for _, origin := range origins {
				if e.remove(policy.Key{Origin: origin, Action: req.Action, Prefix: p.Masked()}) {
					gone = true
				}
			}
			if !gone {
				e.missing = append(e.missing, p)
			}
		}
		return nil
	})
}

// keepExpired is how long an expired entry stays for those who ask what it was.
const keepExpired = 30 * 24 * time.Hour

// settledAfter is how long the agent runs before it removes anything for its age: a
// host that has just booted may have a clock that is years ahead.
const settledAfter = time.Hour

// purge removes entries that expired long ago.
func (a *Agent) purge(ctx context.Context) {
	if a.now().Sub(a.began) < settledAfter {
		return
	}
	set, _ := a.state()
	limit := a.now().Add(-keepExpired)
	var old []policy.Entry
	for e := range set.Having(policy.Expires) {
		if e.Expired(limit) {
			old = append(old, e)
		}
	}
	if len(old) == 0 {
		return
	}
	_, err := a.change(ctx, own("expiry", fmt.Sprintf("expired %d days ago", int(keepExpired.Hours()/24))), func(e *edit, _ plan) error {
		for _, entry := range old {
			if now, ok := e.set.Get(entry.Key()); ok && now.Expired(limit) {
				e.remove(entry.Key())
			}
		}
		return nil
	})
	a.problem("expiry", err)
}
