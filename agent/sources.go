package agent

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
)

// sinceOf is the time that a query looks back to.
func (a *Agent) sinceOf(q url.Values, otherwise string) (time.Time, error) {
	d, err := policy.ParseTTL(cmp.Or(q.Get("since"), otherwise))
	if err != nil {
		return time.Time{}, control.Errorf(http.StatusBadRequest, "since: %w", err)
	}
	return a.now().Add(-d), nil
}

// numberOf is a number in a query.
func numberOf(q url.Values, key string, otherwise int) (int, error) {
	s := q.Get(key)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, control.Errorf(http.StatusBadRequest, "%s: %q is not a whole number", key, s)
	}
	return n, nil
}

// listSources answers GET /v1/sources.
func (a *Agent) listSources(r *http.Request) (any, error) {
	q := r.URL.Query()
	since, err := a.sinceOf(q, "24h")
	if err != nil {
		return nil, err
	}
	top, err := numberOf(q, "top", 20)
	if err != nil {
		return nil, err
	}
	by, ok := map[string]func(control.SourceUse) uint64{
		"attempts": func(s control.SourceUse) uint64 { return s.Attempts },
		"dropped":  func(s control.SourceUse) uint64 { return s.Dropped },
		"open":     func(s control.SourceUse) uint64 { return s.Open },
	}[cmp.Or(q.Get("by"), "attempts")]
	if !ok {
		return nil, control.Errorf(http.StatusBadRequest, "by: %q is not one of attempts, dropped, open", q.Get("by"))
	}
	if err := a.readUse(); err != nil {
		return nil, err
	}
	rows, err := a.journal.attempts.Since(since)
	if err != nil {
		a.log.Warn("sources without a part of the journal", "error", err)
	}
	all, err := a.useBySource(rows)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y control.SourceUse) int {
		return cmp.Or(cmp.Compare(by(y), by(x)), cmp.Compare(y.Attempts, x.Attempts), x.Source.Addr().Compare(y.Source.Addr()))
	})
	if top == 0 {
		top = len(all)
	}
	n := min(top, len(all))
	return control.Sources{
		Since: later(since, a.journal.uses.Since()), Sources: all[:n], Others: len(all) - n, Lost: a.journal.attempts.Lost(),
	}, nil
}

// useBySource adds attempts up by source, with what each has open now.
func (a *Agent) useBySource(rows []journal.Attempt) ([]control.SourceUse, error) {
	by := map[netip.Prefix]*control.SourceUse{}
	get := func(p netip.Prefix) *control.SourceUse {
		if by[p] == nil {
			by[p] = &control.SourceUse{Source: p, Reasons: map[string]uint64{}}
		}
		return by[p]
	}
	set, p := a.state()
	now := a.now()
	for _, r := range rows {
		s := get(r.Source)
		s.Attempts += r.Count
		s.Last = later(s.Last, r.Last)
		for _, port := range p.portsOf(set, now, r) {
			s.Ports = withPort(s.Ports, port)
		}
		switch {
		case r.Observed:
			s.Passed += r.Count
			s.Observed += r.Count
		case r.Passed:
			s.Passed += r.Count
		default:
			s.Dropped += r.Count
		}
		if r.Observed || !r.Passed {
			s.Reasons[r.Reason] += r.Count
		}
	}
	open, err := a.kernel.Sources()
	if err != nil {
		return nil, fmt.Errorf("read open connections: %w", err)
	}
	ids := map[uint64]bool{}
	for _, o := range open {
		ids[o.EntryID] = true
	}
	entries := set.ByID(ids)
	for _, o := range open {
		if !o.Prefix.IsValid() {
			o.Prefix = entries[o.EntryID].Prefix
		}
		if o.Prefix.IsValid() && (o.Open > 0 || by[o.Prefix] != nil) {
			s := get(o.Prefix)
			s.Open += o.Open
			s.Peak = max(s.Peak, o.Peak)
		}
	}
	out := make([]control.SourceUse, 0, len(by))
	for _, s := range by {
		out = append(out, *s)
	}
	return out, nil
}
