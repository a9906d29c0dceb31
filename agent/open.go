package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/droplog"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/supervise"
	"github.com/synward/synward/loader"
)

// New makes an agent that enforces already when New returns. Where it fails, a
// filter that ran before goes on as it was, and one that did not is not left
// behind. Its errors are one line for the operator.
func New(ctx context.Context, o Options) (_ *Agent, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := newAgent(o)
	if a.plan, err = o.Config.plan(); err != nil {
		return nil, err
	}
	if err := o.Config.Filter.namesExist(); err != nil {
		return nil, err
	}
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				err = errors.Join(err, f())
			}
		}
	}()
	if err := a.openStore(ctx, o.Config.Store.Path); err != nil {
		return nil, err
	}
	undo = append(undo, a.store.Close)
	if o.Relay != nil {
		if err := a.prepareRelay(*o.Relay); err != nil {
			return nil, err
		}
		undo = append(undo, a.relay.Close)
	}
	a.server, err = control.Listen(control.Options{
		Socket: o.Config.Control.Socket, Group: o.Config.Control.Group, Relay: a.relayUID, Log: a.log,
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, a.server.Close)
	forget, err := a.openFilter(o.Config.Filter.PinDir)
	if err != nil {
		return nil, err
	}
	undo = append(undo, forget)
	a.problem("confirmation", a.rollBack(ctx)) // what waited too long while no agent ran
	if err := a.enforce(); err != nil {
		return nil, err
	}
	return a, nil
}

func newAgent(o Options) *Agent {
	return &Agent{
		base: o.Log, log: o.Log.With("component", "agent"), version: o.Version, now: o.Now, began: o.Now(),
		events: newRing[control.Event](keepEvents), outcomes: newRing[json.RawMessage](keepOutcomes),
		wake: make(chan struct{}, 1), relink: make(chan struct{}, 1), problems: map[string]string{}, tasks: o.Tasks,
		drops: droplog.New(o.Log), keep: o.Config.Journal.or(defaultJournal()),
	}
}

// prepareRelay binds the relay's ports. It does not listen on them yet: that
// comes with Run, when the filter stands before them.
func (a *Agent) prepareRelay(r RelayOptions) error {
	r.Supervise.Settings = a.relaySettings
	r.Supervise.Log = a.base.With("component", "supervise")
	s, err := supervise.New(r.Supervise)
	if err != nil {
		return err
	}
	a.relay, a.settings = s, r.Settings
	return nil
}

func (a *Agent) relayUID() (uint32, bool) {
	if a.relay == nil {
		return 0, false
	}
	return a.relay.UID(), true
}

// openFilter loads the filter or re-opens the pinned one. forget lets go of
// it, and unloads it again where there was none before.
func (a *Agent) openFilter(pins string) (forget func() error, err error) {
	fresh := false
	if v, err := loader.View(pins); err == nil {
		v.Close()
	} else {
		fresh = errors.Is(err, loader.ErrNotLoaded)
	}
	f, err := loader.Open(loader.Options{PinDir: pins, Log: a.base.With("component", "loader")})
	if err != nil {
		return nil, err
	}
	a.kernel = kernel{rules: f, links: f, readings: f, events: f.Events, tails: f.Tails, close: f.Close}
	return func() error {
		err := f.Close()
		if fresh {
			_, uerr := loader.Unload(pins)
			err = errors.Join(err, uerr)
		}
		return err
	}, nil
}

// enforce writes the rules and then attaches.
func (a *Agent) enforce() error {
	now := a.now()
	ch, err := a.kernel.Sync(policy.Compile(a.set, a.plan.ports, a.plan.caps, now))
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	a.wroteWhole(now)
	a.log.Info("rules in force", "entries", a.set.Len(), "added", ch.Added, "updated", ch.Updated, "removed", ch.Removed)
	a.detachOthers(a.plan.filter)
	return a.attachFirst(a.plan.filter)
}
