package derive

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// Bounds of asking again.
const (
	minWait   = 30 * time.Second // however short a TTL is
	maxWait   = 24 * time.Hour
	firstFail = 30 * time.Second // after a failure; twice as long after each further one
	lastFail  = 15 * time.Minute
	atOnce    = 8                // names, and feeds, that are asked for at a time
	tick      = time.Second      // how often the keeper looks what is due
	nameTime  = 30 * time.Second // for all questions about a name
)

// What the keeper wants of the agent; *agent.Agent is all of it.
type (
	holder interface {
		Policy() *policy.Set
		Ports() []uint16
		Change(context.Context, agent.Update) (control.Changed, error)
	}
	reports interface {
		Docs(ctx context.Context, collection string) ([]store.Doc, error)
		Problem(part string, err error)
	}
	host interface {
		holder
		reports
	}
)

// Options are what a keeper is made of.
type Options struct {
	Names   agent.NamesConfig // valid
	Feeds   agent.FeedsConfig // valid
	Version string            // told to the servers of feeds
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// Keeper is a task of the agent.
type Keeper struct {
	log  *slog.Logger
	now  func() time.Time
	tick time.Duration

	changing sync.Mutex // held over what changes entries or feeds

	mu     sync.Mutex // guards what follows, for a moment at a time
	o      Options
	host   host              // for Report
	feeds  map[string]feed   // as the store has them
	states map[string]*state // by subject
	set    *policy.Set       // that index is of
	index  map[string]*subject
}

// state is how a subject fares.
type state struct {
	good  time.Time // when it was last had whole
	next  time.Time
	fails int
	err   error
	held  error // the growth guard's word on the last set
	notes []string
	mark  mark
	busy  bool
}

// New returns a keeper; it is given to the agent as a task.
func New(o Options) *Keeper {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Keeper{
		log: o.Log.With("component", "derive"), now: o.Now, tick: tick, o: o,
		feeds: map[string]feed{}, states: map[string]*state{},
	}
}

// Configure takes over what a configuration says from now on.
func (k *Keeper) Configure(n agent.NamesConfig, f agent.FeedsConfig) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.o.Names, k.o.Feeds = n, f
	for _, st := range k.states {
		st.next = time.Time{} // what could not be had may be now
	}
}

// Run asks again for what is due, until the context ends (nil).
func (k *Keeper) Run(ctx context.Context, a *agent.Agent) error { return k.run(ctx, a) }

func (k *Keeper) run(ctx context.Context, h host) error {
	var names, lists errgroup.Group
	names.SetLimit(atOnce)
	lists.SetLimit(atOnce) // slow ones hold up no name
	defer func() {
		names.Wait()
		lists.Wait()
	}()
	every := time.NewTicker(k.tick)
	defer every.Stop()
	for {
		due, err := k.due(ctx, h)
		h.Problem("feeds", err)
		for _, s := range due {
			group := &names
			if s.kind == control.KindFeed {
				group = &lists
			}
			if !group.TryGo(func() error {
				k.again(ctx, h, s)
				return nil
			}) {
				k.release(s)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// due takes the subjects that are to be asked for now; release gives one back.
// It tells status of those that cannot be.
func (k *Keeper) due(ctx context.Context, h host) ([]*subject, error) {
	subjects, err := k.subjects(ctx, h)
	now := k.now()
	var out []*subject
	told := map[string]error{}
	k.mu.Lock()
	for id, s := range subjects {
		st := k.state(id)
		if s.stopped() != nil {
			told[id] = s.stopped()
		} else if !st.busy && !now.Before(st.next) && !s.entry.Expired(now) {
			st.busy = true
			out = append(out, s)
		}
	}
	for id := range k.states {
		if subjects[id] == nil {
			delete(k.states, id)
			told[id] = nil
		}
	}
	k.mu.Unlock()
	for id, what := range told {
		h.Problem(id, what)
	}
	return out, err
}

func (k *Keeper) release(s *subject) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state(s.id()).busy = false
}

// state is a subject's, made where there is none. The caller holds mu.
func (k *Keeper) state(id string) *state {
	st := k.states[id]
	if st == nil {
		st = &state{}
		k.states[id] = st
	}
	return st
}

// subjects are all names and feeds, by their IDs; not to be written to. The
// store is asked for the feeds whenever the policy has changed: what wrote one
// may have been an undo.
func (k *Keeper) subjects(ctx context.Context, h host) (map[string]*subject, error) {
	set := h.Policy()
	k.mu.Lock()
	defer k.mu.Unlock()
	if set == k.set && k.index != nil {
		return k.index, nil
	}
	err := k.load(ctx, h)
	if err == nil {
		k.index, k.set = index(set, k.feeds), set
	}
	return k.index, err
}

// reread has the feeds read anew.
func (k *Keeper) reread() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index = nil
}

// load reads the feeds.
func (k *Keeper) load(ctx context.Context, h host) error {
	docs, err := h.Docs(ctx, agent.FeedDocs)
	if err != nil {
		return fmt.Errorf("read feeds: %w", err)
	}
	all := map[string]feed{}
	for _, d := range docs {
		var f feed
		if err := json.Unmarshal(d.Data, &f); err != nil {
			return fmt.Errorf("read feed %s: %w", d.Name, err)
		}
		all[f.Name] = f
		if st := k.state("feed " + f.Name); st.good.IsZero() {
			st.good = f.Good
		}
	}
	k.feeds = all
	return nil
}

// jitter spreads what came due together: up to a tenth earlier.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/10+1)) }

// list is what is shown of all subjects.
func (k *Keeper) list(ctx context.Context, h host) ([]control.Derived, error) {
	subjects, err := k.subjects(ctx, h)
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []control.Derived{}
	for id, s := range subjects {
		d := s.derived()
		if st := k.states[id]; st != nil {
			d.Good, d.Next, d.Notes = st.good, st.next, st.notes
			if st.err != nil {
				d.Error = st.err.Error()
			}
			if st.held != nil {
				d.Held = st.held.Error()
			}
		}
		if err := s.stopped(); err != nil {
			d.Error = err.Error()
		}
		out = append(out, d)
	}
	slices.SortFunc(out, compareDerived)
	return out, err
}
