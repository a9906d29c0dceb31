package derive

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/feeds"
	"github.com/synward/synward/agent/growth"
	"github.com/synward/synward/agent/names"
	"github.com/synward/synward/agent/policy"
)

// found is what a subject stands for now.
type found struct {
	prefixes []netip.Prefix
	notes    []string
	wait     time.Duration // until it is to be asked for again
	mark     mark
}

// get asks for a subject: feeds.ErrUnchanged where it is as it was at the mark.
func (k *Keeper) get(ctx context.Context, s *subject, was mark) (found, error) {
	k.mu.Lock()
	o := k.o
	k.mu.Unlock()
	if s.kind == control.KindFeed {
		f := feeds.NewFetcher(o.Feeds.Options("synward/" + o.Version))
		l, m, err := f.Fetch(ctx, s.url, was)
		return found{prefixes: l.Prefixes, notes: l.Notes, wait: s.every, mark: m}, err
	}
	r, err := names.NewResolver(o.Names.Resolver) // the host's own name servers may have changed
	if err != nil {
		return found{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	res, err := r.Resolve(ctx, s.name)
	return found{prefixes: res.Prefixes, notes: res.Notes, wait: min(max(res.TTL, minWait), maxWait)}, err
}

// most is how many new prefixes a subject may bring by itself. The first ones
// are no growth: the operator sees them.
func (k *Keeper) most(s *subject, have []netip.Prefix) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case len(have) == 0:
		return 0
	case s.kind == control.KindFeed:
		return k.o.Feeds.MaxNew
	}
	return k.o.Names.MaxNew
}

// Errors of planning a change.
var (
	errSame = errors.New("nothing to change")
	errGone = errors.New("removed meanwhile")
)

// plan adds to an update what makes a subject's entries what was found. old
// is the subject as it is in force; nil where it is new.
func (k *Keeper) plan(now *policy.Set, u *agent.Update, old, s *subject, f found, yes bool) (unchanged int, err error) {
	var have []netip.Prefix
	if old != nil {
		have = old.have
	}
	if len(have) == 0 {
		u.Born = append(u.Born, s.born())
	}
	if !yes {
		if err := growth.Check(have, f.prefixes, k.most(s, have)); err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	stays := map[policy.Key]bool{}
	for _, p := range f.prefixes {
		e := s.with(p)
		stays[e.Key()] = true
		if is, there := now.Get(e.Key()); there && is.Same(e) {
			unchanged++
			continue
		}
		u.Put = append(u.Put, e)
	}
	for _, p := range have {
		if key := old.key(p); !stays[key] {
			u.Remove = append(u.Remove, key)
		}
	}
	return unchanged, nil
}

// again asks for a subject that is in force, and brings it up to date. What
// fails changes nothing, and is kept for status.
func (k *Keeper) again(ctx context.Context, h host, s *subject) {
	defer k.release(s)
	k.mu.Lock()
	was := k.state(s.id()).mark
	k.mu.Unlock()
	f, err := k.get(ctx, s, was)
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, feeds.ErrUnchanged) {
		k.note(h, s, found{wait: s.every, mark: was, notes: k.notes(s)}, nil)
		return
	}
	if err == nil {
		err = k.bring(ctx, h, s, f)
	}
	k.note(h, s, f, err)
}

// bring commits what the agent has found by itself.
func (k *Keeper) bring(ctx context.Context, h host, s *subject, f found) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	by := s.kind + ":" + s.name
	if s.kind != control.KindFeed {
		by = "name:" + s.name
	}
	_, err := h.Change(ctx, agent.Update{By: by, Command: "refresh", Why: s.id(), Plan: func(now *policy.Set, u *agent.Update) error {
		subjects, err := k.subjects(ctx, h)
		old := subjects[s.id()]
		if err != nil || old == nil || old.stopped() != nil {
			return errors.Join(err, errGone)
		}
		if _, err := k.plan(now, u, old, old, f, false); err != nil {
			return err
		}
		if len(u.Put)+len(u.Remove) == 0 {
			return errSame
		}
		return k.dated(u, s)
	}})
	if errors.Is(err, errSame) || errors.Is(err, errGone) {
		return nil
	}
	return err
}

// dated adds to an update that a feed's list is of now.
func (k *Keeper) dated(u *agent.Update, s *subject) error {
	if s.kind != control.KindFeed {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.feeds[s.name]
	f.Good = k.now().UTC().Round(0)
	d, err := f.doc()
	u.PutDocs = append(u.PutDocs, d)
	return err
}

func (k *Keeper) notes(s *subject) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state(s.id()).notes
}

// note remembers how asking for a subject went, and tells status what is wrong.
func (k *Keeper) note(h host, s *subject, f found, err error) {
	now := k.now()
	k.mu.Lock()
	st := k.state(s.id())
	held := (*growth.Held)(nil)
	st.err, st.held = nil, nil
	switch {
	case err == nil:
		st.good, st.fails, st.notes, st.mark = now, 0, f.notes, f.mark
		st.next = now.Add(jitter(f.wait))
	case errors.As(err, &held):
		st.held, st.fails, st.mark = held, 0, mark{}
		st.next = now.Add(jitter(f.wait))
		err = fmt.Errorf("held back, and its %d prefixes stay: %w; accept it with: %s", len(s.have), held, s.yes())
	default:
		st.err = err
		wait := min(firstFail<<min(st.fails, 10), lastFail)
		if s.every > 0 {
			wait = min(wait, s.every)
		}
		st.next = now.Add(jitter(wait))
		st.fails++
		err = fmt.Errorf("its last good %d prefixes stay: %w", len(s.have), err)
	}
	k.mu.Unlock()
	h.Problem(s.id(), err)
}

// yes is the command that accepts what is held back.
func (s *subject) yes() string {
	if s.kind == control.KindFeed {
		return "synward feed refresh " + s.name + " --yes"
	}
	return fmt.Sprintf("synward %s refresh %s --yes", s.entry.Action, s.name)
}
