package agent

import (
	"net/http"
	"strings"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// exportPolicy answers GET /v1/policy: the operator's own entries, names and
// feeds as text.
func (a *Agent) exportPolicy(r *http.Request) (any, error) {
	text, err := a.policyText(r.Context())
	return map[string]string{"text": text}, err
}

// isOwn says whether a file speaks of an entry by a line of its own: not of what
// comes of a name or a feed today.
func isOwn(e policy.Entry) bool { return e.Name == "" && e.Origin != policy.Feed }

// applyPolicy answers POST /v1/policy: the operator's own entries, names and
// feeds become what the text says, all or nothing. An entry that is there by a
// command and that the text repeats stays as it is.
func (a *Agent) applyPolicy(r *http.Request) (any, error) {
	var req control.Apply
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	in := asked(r, "policy apply", req.Why, req.DryRun, req.Kill)
	if req.Confirm != "" {
		var err error
		if in.confirm, err = policy.ParseTTL(req.Confirm); err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "confirm: %w", err)
		}
	}
	_, p := a.state()
	text, err := policy.Read(strings.NewReader(req.Text), policy.ParseOptions{
		Name: req.Name, Origin: policy.File, Ports: p.numbers(), Now: a.now(), Subjects: true,
	})
	if err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "%w; nothing changed", err)
	}
	req.Text = ""                                                // with a million lines in it
	named, err := a.prepare(r.Context(), text.Subjects, req.Yes) // asks elsewhere, and takes its time: before the lock
	if err != nil {
		return nil, err
	}
	unchanged := 0
	ans, err := a.change(r.Context(), in, func(e *edit, _ plan) error {
		for _, w := range text.Warnings {
			e.warnings = append(e.warnings, w.Error())
		}
		e.warnings = append(e.warnings, named.Warnings...)
		u := Update{By: in.by}
		if unchanged, err = named.Plan(e.set, &u); err != nil {
			return err
		}
		e.replaceOwn(text.Entries, in.by, a.now())
		text.Entries = nil
		return a.take(r.Context(), e, u)
	})
	ans.Unchanged += unchanged
	if err == nil && !in.dryRun {
		named.Done()
	}
	return ans, err
}

// replaceOwn makes the own entries those of a file.
func (e *edit) replaceOwn(entries []policy.Entry, by string, now time.Time) {
	wanted := policy.Collect(func(yield func(policy.Entry) bool) {
		for _, entry := range entries {
			entry.By, entry.At = by, now
			if twin, ok := e.set.Get(byCommand(entry)); ok && twin.Same(asCommand(entry)) {
				entry = twin
			}
			if !yield(e.kept(entry)) {
				return
			}
		}
	})
	// Made anew and not changed one by one: it may be a million that come or go.
	for old := range e.set.All() {
		if isOwn(old) && !old.Expired(now) {
			continue
		}
		if _, again := wanted.Get(old.Key()); !again {
			wanted.Put(old)
		}
	}
	e.set = wanted
}

// asCommand is the entry as a command would have made it.
func asCommand(e policy.Entry) policy.Entry {
	e.Origin = policy.Operator
	return e
}

func byCommand(e policy.Entry) policy.Key { return asCommand(e).Key() }
