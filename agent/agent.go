package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/droplog"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/agent/supervise"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// Options are what an agent is made of.
type Options struct {
	Config  Config // valid
	Version string
	Relay   *RelayOptions // nil = the filter alone
	Tasks   []Task        // sources of entries beside the operator
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// RelayOptions say how the relay is run. Settings makes its settings of the
// grants; it is called again whenever these change.
type RelayOptions struct {
	Supervise supervise.Options // without Settings
	Settings  func(Grants) ([]byte, error)
}

// Grants are who may send through the relay: users by their accounts'
// documents, sources by their entries.
type Grants struct {
	Accounts []json.RawMessage
	Peers    []Peer
}

// Peer is a source with the relay right.
type Peer struct {
	Prefix netip.Prefix
	Name   string   // the entry's note
	Ports  []uint16 // it has the right on; none: on all
	Except []uint16 // but not on these, where a longer prefix of another entry counts
}

// The filter, by what the agent wants of it; *loader.Filter is all three.
type (
	rules interface {
		Sync(rule.Policy) (loader.Change, error)
		Update(rule.Delta) (loader.Change, error)
		Replace(rule.Policy) (loader.Change, error)
	}
	links interface {
		Attach(name string, mode loader.Mode) (loader.Attachment, error)
		Detach(name string) error
		Attachments() ([]loader.Attachment, error)
	}
	readings interface {
		Probe(src netip.Addr, port uint16) (loader.Answer, error)
		Counters() ([]loader.Counter, error)
		Hits() (map[uint64]loader.Hit, error)
		Sources() ([]loader.Source, error)
	}
)

// kernel is the loaded filter.
type kernel struct {
	rules
	links
	readings
	events func(context.Context, func(loader.Event)) error
	tails  func() ([]loader.Tail, error)
	close  func() error
}

// How many records the agent keeps in memory.
const (
	keepEvents   = 10_000
	keepOutcomes = 10_000
)

// Agent is the daemon.
type Agent struct {
	base    *slog.Logger // for parts, each with a component of its own
	log     *slog.Logger
	version string
	now     func() time.Time
	began   time.Time

	store    store.Store
	lastGood string      // file
	saved    *policy.Set // what lastGood holds
	saveNext time.Time   // when it may be written again
	kernel   kernel
	tasks    []Task
	server   *control.Server
	relay    *supervise.Supervisor // nil = not enabled
	keep     JournalConfig
	journal  journals
	tails    tails
	events   *ring[control.Event]
	outcomes *ring[json.RawMessage]
	drops    *droplog.Log
	wake     chan struct{} // asks for a reconcile
	relink   chan struct{} // asks for one of the interfaces alone

	changing sync.Mutex // held over a whole change, store to kernel
	// guarded by changing:
	compiled time.Time     // the moment that the kernel's rules are of
	took     time.Duration // how long the comparison took
	reading  sync.Mutex    // held while the kernel's counts are taken over
	planning sync.RWMutex  // held while a configuration is taken over
	noting   sync.Mutex    // held while an event goes into ring and log

	mu       sync.RWMutex // guards what follows, for a moment at a time
	set      *policy.Set  // replaced, never written to
	whole    time.Time    // when the kernel's rules were last written or compared as a whole
	coming   *policy.Set  // that the kernel is being told of; nil = none
	plan     plan
	settings func(Grants) ([]byte, error)
	granted  []Peer // that the relay was given last
	history  []record
	pending  *control.Pending // the change that waits for its confirmation
	lastSync time.Time
	problems map[string]string // by part: what is wrong now
	remarks  map[string]string // by interface: what to know of its attachment
}

// plan is the configuration compiled: what Reload may change.
type plan struct {
	filter FilterConfig
	ports  []rule.Port
	caps   policy.Caps
}

func (c Config) plan() (plan, error) {
	ports, err1 := c.ports()
	caps, err2 := c.Caps.compile()
	return plan{filter: c.Filter, ports: ports, caps: caps}, errors.Join(err1, err2)
}

// numbers are the protected ports.
func (p plan) numbers() []uint16 {
	var out []uint16
	for _, port := range p.ports {
		out = append(out, port.Number)
	}
	return out
}

func (c CapsConfig) compile() (policy.Caps, error) {
	r, err := c.rate()
	if err != nil {
		return policy.Caps{}, err
	}
	if c.IPv6Prefix < 1 || c.IPv6Prefix > 128 {
		return policy.Caps{}, badKey("caps.ipv6_prefix", "%d is not from 1 to 128", c.IPv6Prefix)
	}
	if c.Burst > policy.MaxBurst {
		return policy.Caps{}, badKey("caps.burst", "%d is more than %d", c.Burst, policy.MaxBurst)
	}
	return policy.Caps{Conns: c.Connections, Rate: r, Burst: c.Burst, IPv6Prefix: c.IPv6Prefix}, nil
}

// Run serves until the context ends (nil) or a part that cannot be missed
// fails. The filter goes on enforcing; the relay is stopped. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.server.Run(ctx, a.routes()) })
	g.Go(func() error { return a.reconcileLoop(ctx) })
	g.Go(func() error { return a.watch(ctx, watchLinks) })
	if slices.Contains(a.plan.filter.Interfaces, "auto") { // else a router's many routes are nothing to us
		g.Go(func() error { return a.watch(ctx, watchRoutes) })
	}
	g.Go(func() error { return a.pumpEvents(ctx) })
	g.Go(func() error { return a.watchUse(ctx) })
	g.Go(func() error { return a.drops.Run(ctx) })
	if a.relay != nil {
		g.Go(func() error { return a.relay.Run(ctx) })
		g.Go(func() error { return a.followRelay(ctx) })
	}
	for _, t := range a.tasks {
		g.Go(func() error { return t.Run(ctx, a) })
	}
	return g.Wait()
}

// Close lets go of the store and the filter, which goes on enforcing.
func (a *Agent) Close() error {
	return errors.Join(a.kernel.close(), a.store.Close())
}

// Reload takes a new configuration over: interfaces, mode, ports, caps, and
// the relay's settings where settings is not nil. What it names as left needs
// a restart of the agent.
func (a *Agent) Reload(ctx context.Context, c Config, settings func(Grants) ([]byte, error)) error {
	next, err := c.plan()
	if err != nil {
		return err
	}
	if err := c.Filter.namesExist(); err != nil {
		return err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	a.planning.Lock()
	defer a.planning.Unlock()
	set, was := a.state()
	if err := a.resync(set, next); err != nil {
		return errors.Join(err, a.resync(set, was))
	}
	a.mu.Lock()
	a.plan = next
	if settings != nil {
		a.settings = settings
	}
	a.mu.Unlock()
	a.detachOthers(next.filter)
	a.attachAll(next.filter)
	if a.relay != nil {
		return a.relay.Push(ctx)
	}
	return nil
}

// state is a moment's set and plan. The set is not to be written to.
func (a *Agent) state() (*policy.Set, plan) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.set, a.plan
}

// problem notes what is wrong with a part, or with nil that nothing is. It
// logs what is new.
func (a *Agent) problem(part string, err error) {
	a.mu.Lock()
	was := a.problems[part]
	delete(a.problems, part)
	if err != nil {
		a.problems[part] = err.Error()
	}
	a.mu.Unlock()
	switch {
	case err != nil && err.Error() != was:
		a.log.Error("something is wrong", "part", part, "error", err)
	case err == nil && was != "":
		a.log.Info("mended", "part", part, "was", was)
	}
}
