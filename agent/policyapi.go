package agent

import (
	"net/http"
	"slices"
	"strings"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// exportPolicy answers GET /v1/policy: the operator's own entries, by command
// and by file, as text.
func (a *Agent) exportPolicy(*http.Request) (any, error) {
	text, err := a.policyText()
	return map[string]string{"text": text}, err
}

// isOwn says whether an entry is the operator's, by command or by file. What
// comes of a name today is not: a file does not speak of it.
func isOwn(e policy.Entry) bool {
	return e.Name == "" && (e.Origin == policy.Operator || e.Origin == policy.File)
}

// applyPolicy answers POST /v1/policy: the operator's own entries become what
// the text says, all or nothing. An entry that is there by a command and that
// the text repeats stays as it is.
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
	return a.change(r.Context(), in, func(e *edit, p plan) error {
		now := a.now()
		entries, warnings, err := policy.Parse(strings.NewReader(req.Text), policy.ParseOptions{
			Name: req.Name, Origin: policy.File, Ports: p.numbers(), Now: now,
		})
		if err != nil {
			return control.Errorf(http.StatusBadRequest, "%w; nothing changed", err)
		}
		for _, w := range warnings {
			e.warnings = append(e.warnings, w.Error())
		}
		keep := map[policy.Key]bool{}
		for _, entry := range entries {
			entry.By, entry.At = in.by, now
			if twin, ok := e.set.Get(byCommand(entry)); ok && twin.Same(asCommand(entry)) {
				entry = twin
			}
			keep[entry.Key()] = true
			e.put(entry)
		}
		for _, old := range slices.Collect(e.set.All()) {
			if isOwn(old) && !old.Expired(now) && !keep[old.Key()] {
				e.remove(old.Key())
			}
		}
		return nil
	})
}

// asCommand is the entry as a command would have made it.
func asCommand(e policy.Entry) policy.Entry {
	e.Origin = policy.Operator
	return e
}

func byCommand(e policy.Entry) policy.Key { return asCommand(e).Key() }
