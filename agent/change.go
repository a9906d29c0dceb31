package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/loader/rule"
)

// edit is a change to the policy in the making: a copy of the set, and what
// differs in it.
type edit struct {
	set       *policy.Set
	changes   policy.Changes
	unchanged int
	missing   []netip.Prefix
	warnings  []string
}

// put adds or replaces an entry.
func (e *edit) put(entry policy.Entry) {
	old, replaced := e.set.Put(entry)
	switch {
	case !replaced:
		e.changes.Added = append(e.changes.Added, entry)
	case old.Same(entry):
		e.set.Put(old) // who made it and when stays as it was
		e.unchanged++
	default:
		e.changes.Changed = append(e.changes.Changed, policy.Changed{Old: old, New: entry})
	}
}

// batch is what the store has to do, and what undoes it.
func (e *edit) batch() (do, undo store.Batch) {
	for _, a := range e.changes.Added {
		do.Put = append(do.Put, a)
		undo.Delete = append(undo.Delete, a.Key())
	}
	for _, c := range e.changes.Changed {
		do.Put = append(do.Put, c.New)
		undo.Put = append(undo.Put, c.Old)
	}
	for _, r := range e.changes.Removed {
		do.Delete = append(do.Delete, r.Key())
		undo.Put = append(undo.Put, r)
	}
	return do, undo
}

// change is the one way of the policy: fn edits a copy, the store takes it,
// the kernel takes it, and only then does it count. Whatever fails, nothing
// has changed. It returns once the change is in force.
func (a *Agent) change(ctx context.Context, dryRun, kill bool, fn func(*edit, plan) error) (control.Changed, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	set, plan := a.state()
	e := &edit{set: set.Clone()}
	if err := fn(e, plan); err != nil {
		return control.Changed{}, err
	}
	ans := control.Changed{
		DryRun: dryRun, Added: orEmpty(e.changes.Added), Changed: orEmpty(e.changes.Changed), Removed: orEmpty(e.changes.Removed),
		Unchanged: e.unchanged, Missing: e.missing, Warnings: e.warnings,
	}
	cut, err := a.cutOff(set, e.set, plan)
	if err != nil {
		ans.Warnings = append(ans.Warnings, err.Error())
	}
	ans.CutOff = cut
	if dryRun {
		return ans, nil
	}
	if !e.changes.Empty() {
		if ans.Rules, err = a.commit(ctx, e, set, plan); err != nil {
			return control.Changed{}, err
		}
	}
	if kill {
		a.kill(&ans)
	}
	return ans, nil
}

// commit brings an edit into the store and the kernel.
func (a *Agent) commit(ctx context.Context, e *edit, was *policy.Set, p plan) (*control.RuleChange, error) {
	do, undo := e.batch()
	if _, err := a.store.Commit(ctx, do); err != nil {
		return nil, fmt.Errorf("nothing changed: write the store: %w", err)
	}
	ch, err := a.kernel.Sync(policy.Compile(e.set, p.ports, p.caps, a.now()))
	if err != nil {
		err = fmt.Errorf("nothing changed: write the rules: %w", err)
		// The caller may be gone; what was begun is put back all the same.
		if _, uerr := a.store.Commit(context.WithoutCancel(ctx), undo); uerr != nil {
			err = errors.Join(err, fmt.Errorf("and the store could not be put back: %w", uerr))
		}
		return nil, errors.Join(err, a.resync(was, p))
	}
	a.mu.Lock()
	a.set, a.lastSync = e.set, a.now()
	a.mu.Unlock()
	a.poke() // for the next expiry
	a.log.Info("policy changed", "added", len(e.changes.Added), "changed", len(e.changes.Changed), "removed", len(e.changes.Removed))
	return &control.RuleChange{Added: ch.Added, Updated: ch.Updated, Removed: ch.Removed}, nil
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
	who := control.CallerOf(r.Context()).String()
	return a.change(r.Context(), req.DryRun, req.Kill, func(e *edit, p plan) error {
		now := a.now()
		for _, entry := range req.Entries {
			entry.Origin, entry.Feed, entry.By, entry.At = policy.Operator, "", who, now
			asked := entry
			entry, warning, err := policy.New(asked, p.numbers())
			if err != nil {
				return control.Errorf(http.StatusBadRequest, "%s %s: %w; nothing changed", asked.Action, asked.Prefix, err)
			}
			if warning != "" {
				e.warnings = append(e.warnings, warning)
			}
			if entry.Relay {
				e.warnings = append(e.warnings, fmt.Sprintf("%s: the relay right is kept, but the relay does not act on it yet: its users log in", entry.Prefix))
			}
			if entry.Expired(now) {
				return control.Errorf(http.StatusBadRequest, "%s: it would have expired already; nothing changed", entry.Prefix)
			}
			if err := conflicts(e.set, now, entry); err != nil {
				return control.Errorf(http.StatusConflict, "%w; nothing changed", err)
			}
			e.put(entry)
		}
		return nil
	})
}

// conflicts says whether an entry contradicts one that is there, by trying it
// on a copy.
func conflicts(s *policy.Set, now time.Time, e policy.Entry) error {
	_, _, err := s.Clone().Add(now, e)
	return err
}

// removeEntries answers POST /v1/entries/remove.
func (a *Agent) removeEntries(r *http.Request) (any, error) {
	var req control.Remove
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	return a.change(r.Context(), req.DryRun, req.Kill, func(e *edit, _ plan) error {
		for _, p := range req.Prefixes {
			gone := false
			for _, origin := range []policy.Origin{policy.Operator, policy.File} {
				old, removed := e.set.Remove(policy.Key{Origin: origin, Action: req.Action, Prefix: p.Masked()})
				if removed {
					e.changes.Removed = append(e.changes.Removed, old)
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

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
