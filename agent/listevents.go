package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// eventFilter says which events are wanted.
type eventFilter struct {
	since, until time.Time
	source       netip.Prefix
	reasons      []string
	port         uint16
}

func (a *Agent) eventFilter(q url.Values) (f eventFilter, err error) {
	for key, t := range map[string]*time.Time{"since": &f.since, "until": &f.until} {
		if s := q.Get(key); s != "" {
			d, err := policy.ParseTTL(s)
			if err != nil {
				return f, control.Errorf(http.StatusBadRequest, "%s: %w", key, err)
			}
			*t = a.now().Add(-d)
		}
	}
	if s := q.Get("source"); s != "" {
		if f.source, _, err = policy.ParsePrefix(s); err != nil {
			return f, control.Errorf(http.StatusBadRequest, "source: %w", err)
		}
	}
	if s := q.Get("reason"); s != "" {
		f.reasons = strings.Split(s, ",")
		for _, name := range f.reasons {
			var r loader.Reason
			if err := r.UnmarshalText([]byte(name)); err != nil {
				return f, control.Errorf(http.StatusBadRequest, "reason %q: not one of those that synward status shows", name)
			}
		}
	}
	port, err := numberOf(q, "port", 0)
	if port > 65535 {
		err = control.Errorf(http.StatusBadRequest, "port: %d is more than 65535", port)
	}
	f.port = uint16(port)
	return f, err
}

func (f eventFilter) wants(e control.Event) bool {
	return !e.Time.Before(f.since) && (f.until.IsZero() || e.Time.Before(f.until)) &&
		(!f.source.IsValid() || f.source.Contains(e.Source)) &&
		(f.reasons == nil || slices.Contains(f.reasons, e.Reason)) && (f.port == 0 || e.Port == f.port)
}

// listEvents answers GET /v1/events: what stands on disk, and then, where that
// is asked for, what comes.
func (a *Agent) listEvents(r *http.Request) (any, error) {
	f, err := a.eventFilter(r.URL.Query())
	if err != nil {
		return nil, err
	}
	follow := r.URL.Query().Get("follow") == "1"
	return control.Stream(func(ctx context.Context, emit func(any) error) error {
		send := func(e control.Event) error {
			if !f.wants(e) {
				return nil
			}
			e.Allow = a.allowCommand(e)
			return emit(e)
		}
		var next uint64
		a.noting.Lock() // so that what is in the log is not told again by the ring
		log, err := a.journal.log.Snapshot(func() { next = a.events.end() })
		a.noting.Unlock()
		if err != nil {
			a.log.Warn("events of this run of the agent only", "error", err)
			return a.events.each(ctx, 0, follow, send)
		}
		defer log.Close()
		err = log.Each(func(line json.RawMessage) error {
			var e control.Event
			if json.Unmarshal(line, &e) != nil {
				return nil // written by another version
			}
			return send(e)
		})
		if err != nil || !follow {
			return err
		}
		return a.events.each(ctx, next, true, send)
	}), nil
}

// allowCommand is what lets an event's source in, where an entry would.
func (a *Agent) allowCommand(e control.Event) string {
	if e.Reason != loader.NoEntry.String() || !e.Source.IsValid() || e.Source.IsUnspecified() || e.Port == 0 {
		return ""
	}
	_, p := a.state()
	return fmt.Sprintf("synward allow add %s --ports %d", p.sourceOf(e.Source), e.Port)
}
