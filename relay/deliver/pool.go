package deliver

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// hopState is what is known of one next hop, and its idle connections.
type hopState struct {
	hop   Hop
	slots chan struct{} // one for each connection that may be in use

	mu      sync.Mutex
	idle    []*conn
	fails   int // in a row
	until   time.Time
	tried   time.Time
	probing bool
	cause   string
	seen    time.Time

	line line // those who want a connection
}

const (
	maxUses  = 100              // messages on one connection
	idleTime = 10 * time.Second // a connection is kept for the next message
	forcedIn = time.Second      // least time between two attempts that an operator asks for
)

// pass is whether an item may try a hop.
type pass int

const (
	passNo pass = iota
	passYes
	passProbe // the one that finds out whether the hop is back
)

// admit says whether a connection may be tried now; else when to ask again,
// and why. A hop that failed is tried by one item at a time.
func (h *hopState) admit(now time.Time, forced bool, b Backoff) (p pass, again time.Time, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = now
	if h.fails == 0 {
		return passYes, time.Time{}, ""
	}
	forced = forced && now.Sub(h.tried) >= forcedIn
	if !h.probing && (forced || !now.Before(h.until)) {
		h.probing, h.tried = true, now
		return passProbe, time.Time{}, ""
	}
	again, why = h.later(now, b)
	return passNo, again, why
}

// later says when to ask again about a hop that is down. The caller holds the lock.
func (h *hopState) later(now time.Time, b Backoff) (again time.Time, why string) {
	again = now
	if h.until.After(now) {
		again = h.until
	}
	return again.Add(time.Second/10 + rand.N(b.after(h.fails)/4+1)), "next hop is down: " + h.cause
}

// stillUp is admit for one that was let in and had to wait: the hop may have
// failed meanwhile.
func (h *hopState) stillUp(now time.Time, p pass, b Backoff) (ok bool, again time.Time, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fails == 0 || p == passProbe {
		return true, time.Time{}, ""
	}
	again, why = h.later(now, b)
	return false, again, why
}

// failed books that no connection could be had, and says when to try again.
func (h *hopState) failed(now time.Time, cause error, b Backoff) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cause = cause.Error()
	if h.fails == 0 || h.probing { // else one of several that failed together
		h.fails++
		h.until = now.Add(b.after(h.fails))
	}
	h.probing, h.tried = false, now
	return h.until
}

func (h *hopState) works() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails, h.probing, h.cause = 0, false, ""
}

// take returns an idle connection, or nil.
func (h *hopState) take() *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.idle)
	if n == 0 {
		return nil
	}
	c := h.idle[n-1]
	h.idle = h.idle[:n-1]
	return c
}

// give puts a connection back after a transaction that ended well.
func (h *hopState) give(c *conn, now time.Time) {
	if c.used >= maxUses || c.hop.Forward == ForwardPROXY {
		c.quit()
		return
	}
	c.idle = now
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, c)
}

// reap closes connections that have been idle since before then.
func (h *hopState) reap(then time.Time) {
	h.mu.Lock()
	var old []*conn
	for len(h.idle) > 0 && !h.idle[0].idle.After(then) {
		old = append(old, h.idle[0])
		h.idle = h.idle[1:]
	}
	h.mu.Unlock()
	for _, c := range old {
		c.quit()
	}
}

// hop returns the state of a hop.
func (e *Engine) hop(h Hop) *hopState {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.hops[h]
	if s == nil {
		s = &hopState{hop: h, line: newLine(), slots: make(chan struct{}, e.settings.Load().MaxConns)}
		e.hops[h] = s
	}
	return s
}

// reap closes idle connections from time to time, and forgets hops that have
// not been used for long.
func (e *Engine) reap(ctx context.Context) {
	tick := time.NewTicker(idleTime / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := e.opt.Now()
			e.eachHop(func(s *hopState) { s.reap(now.Add(-idleTime)) })
			e.forgetHops(now)
		}
	}
}

func (e *Engine) eachHop(f func(*hopState)) {
	e.mu.Lock()
	list := make([]*hopState, 0, len(e.hops))
	for _, s := range e.hops {
		list = append(list, s)
	}
	e.mu.Unlock()
	for _, s := range list {
		f(s)
	}
}

func (e *Engine) forgetHops(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for h, s := range e.hops {
		s.mu.Lock()
		if len(s.idle) == 0 && len(s.slots) == 0 && !s.probing && now.Sub(s.seen) > time.Hour && now.After(s.until) {
			delete(e.hops, h)
		}
		s.mu.Unlock()
	}
}
