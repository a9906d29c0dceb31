package derive

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/growth"
	"github.com/synward/synward/agent/policy"
)

// Routes are what the keeper answers on the control socket.
func (k *Keeper) Routes(a *agent.Agent) []control.Route {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.host = a
	return k.routes(a)
}

func (k *Keeper) routes(h host) []control.Route {
	with := func(fn func(*http.Request, host) (any, error)) control.Handler {
		return func(r *http.Request) (any, error) { return fn(r, h) }
	}
	return []control.Route{
		{Pattern: "GET /v1/derived", Handler: with(k.listDerived)},
		{Pattern: "POST /v1/derived/refresh", Handler: with(k.refreshDerived)},
		{Pattern: "GET /v1/names/resolve", Handler: with(k.resolveName)},
		{Pattern: "POST /v1/names", Handler: with(k.addNames)},
		{Pattern: "POST /v1/names/remove", Handler: with(k.removeNames)},
		{Pattern: "POST /v1/feeds", Handler: with(k.addFeed)},
		{Pattern: "POST /v1/feeds/remove", Handler: with(k.removeFeeds)},
	}
}

// Report adds names and feeds to status, once Routes has been called.
func (k *Keeper) Report(st *control.Status) {
	k.mu.Lock()
	h := k.host
	k.mu.Unlock()
	if h == nil {
		return
	}
	var err error
	if st.Derived, err = k.list(context.Background(), h); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
}

func (k *Keeper) listDerived(r *http.Request, h host) (any, error) {
	list, err := k.list(r.Context(), h)
	return control.DerivedList{Derived: list}, err
}

// resolveName says what a name stands for now, by the agent's resolver.
func (k *Keeper) resolveName(r *http.Request, _ host) (any, error) {
	name, err := policy.ParseName(r.URL.Query().Get("name"))
	if err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "%w", err)
	}
	f, err := k.get(r.Context(), named(name, policy.Entry{}), mark{})
	if err != nil {
		return nil, control.Errorf(http.StatusUnprocessableEntity, "%s: %w", name, err)
	}
	return control.Resolved{Name: name, Prefixes: f.prefixes, Notes: f.notes}, nil
}

// update is a change that the caller of a request has asked for.
func update(r *http.Request, command, why string, dryRun, kill bool) agent.Update {
	c := control.CallerOf(r.Context())
	return agent.Update{By: c.String(), UID: &c.UID, Command: command, Why: why, DryRun: dryRun, Kill: kill}
}

func (k *Keeper) addNames(r *http.Request, h host) (any, error) {
	var req control.AddNames
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	if len(req.Names) == 0 {
		return nil, control.Errorf(http.StatusBadRequest, "no names given")
	}
	var wanted []*subject
	for _, n := range req.Names {
		name, err := policy.ParseName(n)
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%w; nothing changed", err)
		}
		s := named(name, req.Entry)
		if err := k.check(h, s); err != nil {
			return nil, err
		}
		wanted = append(wanted, s)
	}
	u := update(r, string(req.Entry.Action)+" add", req.Why, req.DryRun, req.Kill)
	return k.replace(r.Context(), h, u, wanted, req.Yes)
}

// check puts a subject's entry into its canonical form, by a prefix that it
// might have, and refuses a bad one.
func (k *Keeper) check(h host, s *subject) error {
	sample := s.entry
	sample.Prefix = samplePrefix()
	e, _, err := policy.New(sample, h.Ports())
	if err == nil && e.Expired(k.now()) {
		err = errors.New("it would have expired already")
	}
	if err != nil {
		return control.Errorf(http.StatusBadRequest, "%s %s: %w; nothing changed", s.entry.Action, s.name, err)
	}
	s.entry = template(e)
	return nil
}

// replace asks for subjects now and makes their entries what comes, all or
// none.
func (k *Keeper) replace(ctx context.Context, h host, u agent.Update, wanted []*subject, yes bool) (control.Changed, error) {
	got := make([]found, len(wanted))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, s := range wanted {
		g.Go(func() (err error) {
			got[i], err = k.get(gctx, s, mark{})
			if err != nil {
				return control.Errorf(http.StatusUnprocessableEntity, "%s: %w; nothing changed", s.name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return control.Changed{}, err
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	unchanged := 0
	u.Plan = func(now *policy.Set, u *agent.Update) error {
		subjects, err := k.subjects(ctx, h)
		for i, s := range wanted {
			n, perr := k.plan(now, u, subjects[s.id()], s, got[i], yes)
			unchanged += n
			err = errors.Join(err, perr)
		}
		return err
	}
	ans, err := h.Change(ctx, u)
	if held := (*growth.Held)(nil); errors.As(err, &held) {
		return ans, control.Errorf(http.StatusConflict, "%w; nothing changed: add --yes if that is meant", err)
	}
	if err != nil {
		return ans, err
	}
	ans.Unchanged = unchanged
	for i, s := range wanted {
		for _, n := range got[i].notes {
			ans.Warnings = append(ans.Warnings, s.name+": "+n)
		}
		if !u.DryRun {
			k.note(h, s, got[i], nil)
		}
	}
	return ans, nil
}

func (k *Keeper) removeNames(r *http.Request, h host) (any, error) {
	var req control.RemoveNames
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range req.Names {
		name, err := policy.ParseName(n)
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%w; nothing changed", err)
		}
		ids = append(ids, string(req.Action)+" "+name)
	}
	u := update(r, string(req.Action)+" remove", req.Why, req.DryRun, req.Kill)
	return k.remove(r.Context(), h, u, ids, req.Names)
}

// remove takes subjects out with all their entries. said is how the caller
// calls them.
func (k *Keeper) remove(ctx context.Context, h host, u agent.Update, ids, said []string) (control.Changed, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	var missing []string
	u.Plan = func(_ *policy.Set, u *agent.Update) error {
		subjects, err := k.subjects(ctx, h)
		for i, id := range ids {
			s := subjects[id]
			if s == nil {
				missing = append(missing, said[i])
				continue
			}
			s.planRemoval(u)
		}
		return err
	}
	ans, err := h.Change(ctx, u)
	ans.NotNamed = missing
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if st := k.states[id]; st != nil {
			st.next = time.Time{} // should an undo bring it back
		}
	}
	return ans, err
}

func (k *Keeper) refreshDerived(r *http.Request, h host) (any, error) {
	var req control.Refresh
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	subjects, err := k.subjects(r.Context(), h)
	if err != nil {
		return nil, err
	}
	prefix := string(req.Action) + " "
	if req.Feeds {
		prefix = "feed "
	}
	var wanted []*subject
	for _, n := range req.Names {
		if !req.Feeds {
			if n, err = policy.ParseName(n); err != nil {
				return nil, control.Errorf(http.StatusBadRequest, "%w", err)
			}
		}
		s := subjects[prefix+n]
		if s == nil || s.stopped() == errOrphan {
			return nil, control.Errorf(http.StatusNotFound, "no %s%s to refresh", prefix, n)
		}
		wanted = append(wanted, s)
	}
	if len(req.Names) == 0 {
		for _, s := range subjects {
			if (s.kind == control.KindFeed) == req.Feeds && (req.Feeds || s.entry.Action == req.Action) && s.stopped() == nil && !s.entry.Expired(k.now()) {
				wanted = append(wanted, s)
			}
		}
	}
	slices.SortFunc(wanted, func(a, b *subject) int { return compareDerived(a.derived(), b.derived()) })
	return k.replace(r.Context(), h, update(r, prefix+"refresh", req.Why, req.DryRun, false), wanted, req.Yes)
}
