package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// undoPolicy answers POST /v1/policy/undo.
func (a *Agent) undoPolicy(r *http.Request) (any, error) {
	var req control.Undo
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	all := a.records()
	by := undoneBy(all)
	if req.Change == 0 {
		for _, rec := range slices.Backward(all) {
			if rec.UID != nil && rec.Undoes == 0 && by[rec.ID] == 0 {
				req.Change = rec.ID
				break
			}
		}
		if req.Change == 0 {
			return nil, control.Errorf(http.StatusConflict, "no change is left to undo; synward policy history lists them")
		}
	} else if u := by[req.Change]; u != 0 {
		return nil, control.Errorf(http.StatusConflict, "change %d is undone already, by change %d; to have it back: synward policy undo %d", req.Change, u, u)
	}
	in := asked(r, "undo", req.Why, req.DryRun, req.Kill)
	in.undoes, in.ends = req.Change, true
	return a.undo(r.Context(), in)
}

// undo takes one change back, and ends its wait for a confirmation. What has
// been changed since is a conflict.
func (a *Agent) undo(ctx context.Context, in intent) (control.Changed, error) {
	if _, err := a.changeByID(in.undoes); err != nil {
		return control.Changed{}, err
	}
	c, err := a.entriesOf(ctx, in.undoes)
	if err != nil {
		return control.Changed{}, err
	}
	ans, err := a.change(ctx, in, func(e *edit, _ plan) error {
		p := a.waiting()
		if p != nil && p.Change != in.undoes {
			return control.Errorf(http.StatusConflict, "change %d waits for its confirmation; undo that one first, or keep it with synward policy confirm", p.Change)
		}
		if p != nil {
			if err := a.endWait(ctx, e); err != nil {
				return err
			}
		}
		if err := takeBack(e, c, a.now()); err != nil {
			return err
		}
		return a.takeDocsBack(ctx, e, c)
	})
	if err == nil && !in.dryRun {
		a.settled(in.undoes)
	}
	return ans, err
}

func changedSince(what string) error {
	return control.Errorf(http.StatusConflict, "%s has been changed since; nothing changed: undo the later change first (synward policy history)", what)
}

// takePlainBack is takeBack for entries that come of no name and no feed.
func takePlainBack(e *edit, c policy.Changes, now time.Time) error {
	since := func(k policy.Key) error { return changedSince(k.String()) }
	for _, added := range c.Added {
		is, there := e.set.Get(added.Key())
		if there && !is.Same(added) {
			return since(added.Key())
		}
		e.remove(added.Key())
	}
	restore := make([]policy.Entry, 0, len(c.Changed)+len(c.Removed))
	for _, ch := range c.Changed {
		if is, there := e.set.Get(ch.New.Key()); !there || !is.Same(ch.New) {
			return since(ch.New.Key())
		}
		restore = append(restore, ch.Old)
	}
	for _, gone := range c.Removed {
		if is, there := e.set.Get(gone.Key()); there && !is.Same(gone) {
			return since(gone.Key())
		}
		restore = append(restore, gone)
	}
	for _, entry := range restore {
		if err := e.set.Conflict(now, entry); err != nil {
			return control.Errorf(http.StatusConflict, "%w; nothing changed", err)
		}
		e.put(entry)
	}
	return nil
}

// pendingDoc is where the store has the change that waits.
var pendingDoc = store.Doc{Collection: "pending", Name: "confirm"}

// wait is what pendingDoc holds.
type wait struct {
	Change   uint64        `json:"change"`
	Deadline time.Time     `json:"deadline"`
	Length   time.Duration `json:"length"` // of the whole wait
}

// await has the store remember, with the change itself, until when it has to
// be confirmed.
func (e *edit) await(id uint64, deadline time.Time, length time.Duration) error {
	data, err := json.Marshal(wait{Change: id, Deadline: deadline, Length: length})
	if err != nil {
		return err
	}
	d := pendingDoc
	d.Data = data
	e.putDoc(d, nil)
	return nil
}

// endWait has the store forget, with an edit, what waits.
func (a *Agent) endWait(ctx context.Context, e *edit) error {
	was, found, err := store.GetDoc(ctx, a.store, pendingDoc.Collection, pendingDoc.Name)
	if err == nil && found {
		e.deleteDoc(pendingDoc, was)
	}
	return err
}

// loadPending reads what waits from the store. Whatever has happened to the
// wall clock while the agent was away, it never waits longer than it was told.
func (a *Agent) loadPending(ctx context.Context) error {
	data, found, err := store.GetDoc(ctx, a.store, pendingDoc.Collection, pendingDoc.Name)
	if err != nil || !found {
		return err
	}
	var w wait
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("read what waits for a confirmation: %w", err)
	}
	now := a.now()
	a.pending = &control.Pending{Change: w.Change, Deadline: now.Add(min(w.Deadline.Sub(now), w.Length))}
	return nil
}

// waiting is the change that waits for its confirmation; nil where none does.
func (a *Agent) waiting() *control.Pending {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.pending
}

// settled ends the wait of a change in memory.
func (a *Agent) settled(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pending != nil && a.pending.Change == id {
		a.pending = nil
	}
}

// confirmPolicy answers POST /v1/policy/confirm.
func (a *Agent) confirmPolicy(r *http.Request) (any, error) {
	var req struct {
		DryRun bool `json:"dry_run"`
	}
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	p := a.waiting()
	if all := a.records(); len(all) > 0 {
		// the wait is over a moment after the rollback, and this may be between
		if last := all[len(all)-1]; last.Command == rollback && (p == nil || p.Change == last.Undoes) {
			return nil, control.Errorf(http.StatusConflict, "too late: change %d was rolled back %s; synward policy undo %d brings it again",
				last.Undoes, last.Time.Format(time.RFC3339), last.ID)
		}
	}
	if p == nil {
		return control.Confirmed{DryRun: req.DryRun}, nil
	}
	ans := control.Confirmed{Change: p.Change, DryRun: req.DryRun}
	if req.DryRun {
		return ans, nil
	}
	if _, err := a.store.Commit(r.Context(), store.Batch{DeleteDocs: []store.Doc{pendingDoc}}); err != nil {
		return nil, fmt.Errorf("nothing changed: write the store: %w", err)
	}
	a.settled(p.Change)
	a.log.Info("policy confirmed", "change", p.Change, "by", control.CallerOf(r.Context()).String())
	return ans, nil
}

// rollback is the command under which history has what undid itself.
const rollback = "rollback"

// rollBack undoes the change that has not been confirmed in time. Entries that
// something else has touched since stay as they are: the old way in must come
// back, whatever else.
func (a *Agent) rollBack(ctx context.Context) error {
	p := a.waiting()
	if p == nil || a.now().Before(p.Deadline) {
		return nil
	}
	in := own(rollback, fmt.Sprintf("change %d was not confirmed", p.Change))
	in.undoes, in.ends = p.Change, true
	c, err := a.entriesOf(ctx, p.Change)
	if err != nil {
		return err
	}
	_, err = a.change(ctx, in, func(e *edit, _ plan) error {
		if q := a.waiting(); q == nil || q.Change != p.Change {
			return nil // confirmed or undone in this very moment
		}
		force(e, c)
		if err := a.takeDocsBack(ctx, e, c); err != nil {
			return err
		}
		return a.endWait(ctx, e)
	})
	if err == nil {
		a.settled(p.Change)
	}
	return err
}

// forcePlain is force for entries that come of no name and no feed.
func forcePlain(e *edit, c policy.Changes) {
	for _, added := range c.Added {
		if is, there := e.set.Get(added.Key()); there && is.Same(added) {
			e.remove(added.Key())
		}
	}
	for _, ch := range c.Changed {
		if is, there := e.set.Get(ch.New.Key()); there && is.Same(ch.New) {
			e.put(ch.Old)
		}
	}
	for _, gone := range c.Removed {
		if _, there := e.set.Get(gone.Key()); !there {
			e.put(gone)
		}
	}
}
