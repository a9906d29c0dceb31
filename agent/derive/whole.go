package derive

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/growth"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// Subjects are the names and feeds in force, as a policy file has them. A feed
// of which nobody knows where it is has no line, and one that has expired none
// either.
func (k *Keeper) Subjects(ctx context.Context, a *agent.Agent) ([]policy.Subject, error) {
	return k.inForce(ctx, a)
}

func (k *Keeper) inForce(ctx context.Context, h host) ([]policy.Subject, error) {
	subjects, err := k.subjects(ctx, h)
	var out []policy.Subject
	for _, s := range subjects {
		if s.stopped() == nil && !s.entry.Expired(k.now()) {
			out = append(out, policy.Subject{Entry: template(s.entry), URL: s.url, Every: s.every})
		}
	}
	return out, err
}

// Prepare asks for the names and feeds of a policy file that are not in force
// yet; those that are keep the prefixes that they have, so that a file is
// applied also where no resolver answers.
func (k *Keeper) Prepare(ctx context.Context, a *agent.Agent, wanted []policy.Subject, yes bool) (agent.Prepared, error) {
	return k.prepare(ctx, a, wanted, yes)
}

// wish is a line of a policy file.
type wish struct {
	at   policy.Subject
	s    *subject
	feed *feed  // with a feed
	got  *found // nil = it keeps what it has
}

func (k *Keeper) prepare(ctx context.Context, h host, wanted []policy.Subject, yes bool) (agent.Prepared, error) {
	subjects, err := k.subjects(ctx, h)
	if err != nil {
		return agent.Prepared{}, err
	}
	var wishes []*wish
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, line := range wanted {
		if line.Entry.Expired(k.now()) {
			continue // as with a prefix: it is as if it were not there
		}
		w, err := k.wish(line)
		if err != nil {
			return agent.Prepared{}, control.Errorf(http.StatusBadRequest, "%w; nothing changed", line.Fail(err))
		}
		wishes = append(wishes, w)
		if old := subjects[w.s.id()]; old != nil && len(old.have) > 0 && old.url == w.s.url {
			continue
		}
		g.Go(func() error {
			f, err := k.get(gctx, w.s, mark{})
			if err != nil {
				return control.Errorf(http.StatusUnprocessableEntity, "%w; nothing changed", w.at.Fail(err))
			}
			w.got = &f
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return agent.Prepared{}, err
	}
	p := agent.Prepared{
		Plan: func(now *policy.Set, u *agent.Update) (int, error) { return k.planAll(ctx, h, now, u, wishes, yes) },
		Done: func() { k.noteAll(h, wishes) },
	}
	for _, w := range wishes {
		if w.got != nil {
			for _, n := range w.got.notes {
				p.Warnings = append(p.Warnings, w.s.name+": "+n)
			}
		}
	}
	return p, nil
}

// wish is what a line asks for.
func (k *Keeper) wish(line policy.Subject) (*wish, error) {
	if line.Entry.Feed == "" {
		return &wish{at: line, s: named(line.Entry.Name, line.Entry)}, nil
	}
	f, err := k.newFeed(line.URL, line.Every, line.Entry)
	if err != nil {
		return nil, err
	}
	return &wish{at: line, s: f.subject(), feed: &f}, nil
}

// planAll adds to an update what makes the wishes the only subjects in force.
func (k *Keeper) planAll(ctx context.Context, h host, now *policy.Set, u *agent.Update, wishes []*wish, yes bool) (unchanged int, err error) {
	subjects, err := k.subjects(ctx, h)
	if err != nil {
		return 0, err
	}
	others := maps.Clone(subjects)
	for _, w := range wishes {
		old := subjects[w.s.id()]
		delete(others, w.s.id())
		f := cmp.Or(w.got, kept(old))
		if f == nil {
			return 0, control.Errorf(http.StatusConflict, "%w; nothing changed", w.at.Fail(errGone))
		}
		n, err := k.plan(now, u, old, w.s, *f, yes || w.got == nil)
		if held := (*growth.Held)(nil); errors.As(err, &held) {
			return 0, control.Errorf(http.StatusConflict, "%w; nothing changed: add --yes if that is meant", w.at.Fail(held))
		} else if err != nil {
			return 0, err
		}
		unchanged += n
		if err := k.planDoc(u, w); err != nil {
			return 0, err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(others)) {
		if s := others[id]; !s.entry.Expired(k.now()) {
			s.planRemoval(u)
		}
	}
	return unchanged, nil
}

// kept is what a subject stands for where nobody asks; nil = it is not in force.
func kept(s *subject) *found {
	if s == nil || len(s.have) == 0 {
		return nil
	}
	return &found{prefixes: s.have}
}

// planDoc adds to an update a feed's document, where it says anything new.
func (k *Keeper) planDoc(u *agent.Update, w *wish) error {
	if w.feed == nil {
		return nil
	}
	k.mu.Lock()
	was, known := k.feeds[w.feed.Name]
	k.mu.Unlock()
	if w.got == nil && known {
		w.feed.Good = was.Good
		if w.feed.URL == was.URL && w.feed.Every == was.Every && w.feed.same(was) {
			return nil
		}
	}
	d, err := w.feed.doc()
	u.PutDocs = append(u.PutDocs, d)
	return err
}

// same says whether two feeds mean the same by each of their entries.
func (f feed) same(o feed) bool {
	a, b := f.subject().with(samplePrefix()), o.subject().with(samplePrefix())
	return a.Same(b)
}

// planRemoval adds to an update what takes a subject out.
func (s *subject) planRemoval(u *agent.Update) {
	for _, p := range s.have {
		u.Remove = append(u.Remove, s.key(p))
	}
	if s.kind == control.KindFeed {
		u.DeleteDocs = append(u.DeleteDocs, store.Doc{Collection: agent.FeedDocs, Name: s.name})
	}
}

// noteAll remembers how it went with what has been asked for.
func (k *Keeper) noteAll(h host, wishes []*wish) {
	k.reread()
	for _, w := range wishes {
		if w.got != nil {
			k.note(h, w.s, *w.got, nil)
		}
	}
}
