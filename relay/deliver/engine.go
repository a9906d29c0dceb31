package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synward/synward/relay/queue"
)

// Kind is what became of a recipient in an attempt.
type Kind string

// The kinds of outcome.
const (
	Delivered Kind = "delivered"
	Deferred  Kind = "deferred"
	Bounced   Kind = "bounced" // refused or expired; the sender is told if there is one
)

// Outcome is what one attempt brought for one recipient.
type Outcome struct {
	Time  time.Time
	Kind  Kind
	Item  string
	User  string
	From  string
	Rcpt  string
	Hop   string        // host:port; empty where none was reached
	Reply string        // the next hop's, or the cause in words
	Delay time.Duration // since the message was accepted
	Next  time.Time     // for Deferred: when it is tried again
}

// Options configure New.
type Options struct {
	Queue   *queue.Queue
	Observe func(Outcome) // called from several goroutines; must not block
	Log     *slog.Logger
	Workers int           // connections in use at once, 256
	Grace   time.Duration // how long transactions may go on after the context ended, 20 s
	Now     func() time.Time
	Dialer  interface { // nil: a net.Dialer
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	}
}

// Engine delivers what is due in a queue.
type Engine struct {
	opt      Options
	settings atomic.Pointer[Settings]
	to       timeouts

	conns chan struct{} // a place for each connection in use
	first sync.Once
	ready chan struct{} // closed by the first Configure

	mu   sync.Mutex
	hops map[Hop]*hopState
}

// maxInHand is how many items may be worked on at once. One that waits for its
// next hop has no connection and no buffer, so that many may, and a slow hop
// does not keep the others' mail waiting.
const maxInHand = 4096

// New makes an engine. It delivers to nobody before Configure.
func New(o Options) *Engine {
	if o.Observe == nil {
		o.Observe = func(Outcome) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "deliver")
	if o.Workers == 0 {
		o.Workers = 256
	}
	if o.Grace == 0 {
		o.Grace = 20 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{}
	}
	e := &Engine{opt: o, to: defaultTimeouts(), hops: map[Hop]*hopState{}, conns: make(chan struct{}, o.Workers), ready: make(chan struct{})}
	return e
}

// Configure puts settings in force for attempts that begin from now on.
// Smart hosts should have been validated with Hop.Validate.
func (e *Engine) Configure(s Settings) {
	s = s.withDefaults()
	e.settings.Store(&s)
	e.first.Do(func() { close(e.ready) })
	e.eachHop(func(h *hopState) { h.line.call(true, e.opt.Queue.Ready) }) // there may be another way
}

// Run delivers until ctx ends (nil) or the queue fails (its error). It waits for
// the first Configure: without settings every attempt would be in vain, and put
// off what was waiting, or give it up.
func (e *Engine) Run(ctx context.Context) error {
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil
	}
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { e.reap(ctx) })
	err := e.dispatch(ctx, hard, &wg)
	stop()
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(e.opt.Grace):
		cut()
		<-ended
	}
	e.eachHop(func(s *hopState) { s.reap(e.opt.Now()) })
	return err
}

// maxIdle is how many goroutines wait for the next item. Their stacks have
// grown to what an attempt takes, which a new one's would have to do again.
const maxIdle = 64

func (e *Engine) dispatch(ctx, hard context.Context, wg *sync.WaitGroup) error {
	places := make(chan struct{}, maxInHand)
	work := make(chan queue.Item)
	defer close(work)
	var idle atomic.Int64
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		it, err := e.opt.Queue.Next(ctx)
		if ctx.Err() != nil || errors.Is(err, queue.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("deliver: %w", err)
		}
		select {
		case work <- it: // somebody waits
			continue
		default:
		}
		wg.Go(func() {
			for more := true; more; {
				if err := e.handle(ctx, hard, it); err != nil && !errors.Is(err, queue.ErrNotFound) {
					e.opt.Log.Error("record a delivery", "item", it.ID, "error", err)
				}
				<-places
				if more = idle.Add(1) <= maxIdle; more {
					it, more = <-work
				}
				idle.Add(-1)
			}
		})
	}
}

// attempt is the work on one item.
type attempt struct {
	e     *Engine
	s     *Settings
	it    queue.Item
	left  []int
	last  map[int]answer // the newest answer for those who are left
	hopOf map[int]string
	head  []byte      // goes before the message
	again time.Time   // the earliest time that a hop may be up
	tried bool        // a next hop was asked, or dialled
	busy  []*hopState // have too many waiting already
	gone  bool        // nothing is left, or the item was taken away
}

// handle makes one attempt at an item and books what it brought.
func (e *Engine) handle(ctx, hard context.Context, it queue.Item) error {
	a := &attempt{e: e, s: e.settings.Load(), it: it, left: it.Pending(), last: map[int]answer{}, hopOf: map[int]string{}}
	groups, err := a.groups(ctx)
	if err != nil {
		return err
	}
	if err := a.sign(); err != nil {
		a.refuseAll(err)
		groups = nil
	}
	for _, g := range groups {
		if err := a.group(ctx, hard, g); err != nil {
			return err
		}
	}
	if a.gone {
		return nil
	}
	return a.postpone()
}

// place waits until h and the engine have a connection to spare. The error is
// ctx's: nothing was begun then.
func (a *attempt) place(ctx context.Context, h *hopState) (leave func(), err error) {
	h.line.enter()
	defer h.line.leave()
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a.e.conns <- struct{}{}:
	case <-ctx.Done():
		<-h.slots
		return nil, ctx.Err()
	}
	return func() {
		<-a.e.conns
		<-h.slots
		h.line.call(false, a.e.opt.Queue.Ready)
	}, nil
}

// transact makes one transaction on a pooled or new connection. connected is
// false where the hop could not be reached: then again says when it may be.
func (a *attempt) transact(hard context.Context, h *hopState, rcpts []int) (list []answer, connected bool, err error) {
	c := h.take()
	for {
		if c == nil {
			if c, err = connect(hard, a.e.opt.Dialer, h.hop, a.s.Hostname, senderOf(a.it), a.e.to); err != nil {
				return nil, false, err
			}
		}
		h.works()
		list, err = a.onConn(c, rcpts)
		if err == nil {
			h.give(c, a.e.opt.Now())
			return list, true, nil
		}
		c.close()
		if !errors.Is(err, errStale) {
			return list, true, err
		}
		c = nil
	}
}

func (a *attempt) onConn(c *conn, rcpts []int) (_ []answer, err error) {
	body, err := a.e.opt.Queue.Body(a.it.ID)
	if err != nil {
		return nil, err
	}
	defer func(r io.Closer) { _ = r.Close() }(body) // only read
	it := a.it
	it.Size += int64(len(a.head))
	return c.transaction(it, rcpts, io.MultiReader(bytes.NewReader(a.head), body))
}
