package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// The store's collections of history: what is listed, and the entries of each
// change, which are only read to show or undo one.
const (
	history = "history"
	changes = "changes"
)

// How much history is kept beside what operators did: what the agent did by
// itself (feeds change every hour), and the bytes of all changes' entries.
const (
	keepOwn     = 200
	keepChanges = 64 << 20
)

// record is a change in history, and the bytes that its entries take.
type record struct {
	control.Change
	Size int `json:"size"`
}

func docName(id uint64) string { return fmt.Sprintf("%020d", id) }

func (r record) docs(entries []byte) ([]store.Doc, error) {
	summary, err := json.Marshal(r)
	return []store.Doc{
		{Collection: history, Name: docName(r.ID), Data: summary},
		{Collection: changes, Name: docName(r.ID), Data: entries},
	}, err
}

// record puts an edit into history, in the same commit as the edit itself.
func (a *Agent) record(in intent, e *edit, was *policy.Set, p plan) (record, error) {
	if e.changes.Empty() {
		return record{}, nil
	}
	now := a.now()
	effect := policy.EffectOf(was, e.set, p.ports, now, e.changes.Prefixes())
	r := record{Change: control.Change{
		ID: a.nextChange(), Time: now.UTC().Round(0), UID: in.uid, By: in.by, Command: in.command, Why: in.why,
		Added: len(e.changes.Added), Changed: len(e.changes.Changed), Removed: len(e.changes.Removed),
		Rules: control.RuleChange(effect), Undoes: in.undoes,
	}}
	if in.confirm > 0 {
		r.ConfirmBy = r.Time.Add(in.confirm)
		if err := e.await(r.ID, r.ConfirmBy, in.confirm); err != nil {
			return r, err
		}
	}
	d := done{Changes: e.changes, Born: e.born}
	if in.uid != nil || in.undoes != 0 {
		d.Docs = e.docChanges()
	}
	entries, err := pack(d)
	if err != nil {
		return r, err
	}
	r.Size = len(entries)
	docs, err := r.docs(entries)
	for _, d := range docs {
		e.putDoc(d, nil)
	}
	return r, err
}

// loadHistory reads the list from the store.
func (a *Agent) loadHistory(ctx context.Context) error {
	docs, _, err := store.Docs(ctx, a.store, history)
	if err != nil {
		return err
	}
	for _, d := range docs {
		var r record
		if err := json.Unmarshal(d.Data, &r); err != nil {
			return fmt.Errorf("read history: %s: %w", d.Name, err)
		}
		a.history = append(a.history, r)
	}
	return nil
}

func (a *Agent) nextChange() uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if n := len(a.history); n > 0 {
		return a.history[n-1].ID + 1
	}
	return 1
}

// remember adds what is in the store by now to the list.
func (a *Agent) remember(r record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.history = append(slices.Clip(a.history), r)
	if !r.ConfirmBy.IsZero() {
		// By the agent's own clock, which no step of the wall clock moves.
		a.pending = &control.Pending{Change: r.ID, Deadline: a.now().Add(r.ConfirmBy.Sub(r.Time))}
	}
}

// records is the list, oldest first, not to be written to.
func (a *Agent) records() []record {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.history
}

// tooOld picks from history what is beyond its bounds, of operators' changes
// more than asked. The latest change stays whatever its size.
func tooOld(all []record, asked int) (drop []record) {
	askedFor, byItself, size := 0, 0, 0
	for i, r := range slices.Backward(all) {
		n, most := &byItself, keepOwn
		if r.UID != nil {
			n, most = &askedFor, asked
		}
		if *n == most || size+r.Size > keepChanges && i < len(all)-1 {
			drop = append(drop, r)
			continue
		}
		*n++
		size += r.Size
	}
	return drop
}

// trimHistory keeps history within its bounds.
func (a *Agent) trimHistory(ctx context.Context) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	drop := tooOld(a.records(), a.keep.History)
	if len(drop) == 0 {
		return nil
	}
	gone := map[uint64]bool{}
	var b store.Batch
	for _, r := range drop {
		gone[r.ID] = true
		docs, err := r.docs(nil)
		if err != nil {
			return err
		}
		b.DeleteDocs = append(b.DeleteDocs, docs...)
	}
	if _, err := a.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("trim history: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.history = slices.DeleteFunc(slices.Clone(a.history), func(r record) bool { return gone[r.ID] })
	return nil
}

// undoneBy says by which change each one is undone now. One whose undoing has
// been undone is not.
func undoneBy(all []record) map[uint64]uint64 {
	by := map[uint64]uint64{}
	for _, r := range slices.Backward(all) {
		if _, undone := by[r.ID]; r.Undoes != 0 && !undone {
			by[r.Undoes] = r.ID
		}
	}
	return by
}

// listHistory answers GET /v1/history.
func (a *Agent) listHistory(r *http.Request) (any, error) {
	last := 50
	if s := r.URL.Query().Get("last"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, control.Errorf(http.StatusBadRequest, "last: %q is not a number", s)
		}
		last = cmp.Or(n, math.MaxInt)
	}
	all := a.records()
	by, ans := undoneBy(all), control.History{Changes: []control.Change{}}
	for _, rec := range slices.Backward(all) {
		if len(ans.Changes) == last {
			break
		}
		rec.UndoneBy = by[rec.ID]
		ans.Changes = append(ans.Changes, rec.Change)
	}
	return ans, nil
}

// showChange answers GET /v1/history/{id}.
func (a *Agent) showChange(r *http.Request) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "%q is not a change's number; synward policy history lists them", r.PathValue("id"))
	}
	rec, err := a.changeByID(id)
	if err != nil {
		return nil, err
	}
	rec.UndoneBy = undoneBy(a.records())[id]
	d, err := a.entriesOf(r.Context(), id)
	rec.Entries = &d.Changes
	return rec.Change, err
}

func (a *Agent) changeByID(id uint64) (record, error) {
	for _, r := range a.records() {
		if r.ID == id {
			return r, nil
		}
	}
	return record{}, control.Errorf(http.StatusNotFound, "no change %d in history; synward policy history lists them", id)
}

func (a *Agent) entriesOf(ctx context.Context, id uint64) (done, error) {
	data, found, err := store.GetDoc(ctx, a.store, changes, docName(id))
	if err != nil {
		return done{}, err
	}
	if !found {
		return done{}, fmt.Errorf("read history: the entries of change %d are gone: %w", id, io.ErrUnexpectedEOF)
	}
	return unpack(data)
}
