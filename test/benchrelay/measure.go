package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const drainTime = 3 * time.Minute // for what was accepted to arrive

// measure puts one load on one server and waits until all of it has arrived.
func measure(ctx context.Context, o options, env *stage, s server, sc scenario) (result, error) {
	// One message first: what is made at first use is not measured.
	if err := warm(ctx, env, s, sc.Plain); err != nil {
		return result{}, err
	}
	l := &load{env: env, addr: s.address(sc.Plain), sc: sc, pipe: o.pipeline}
	first := env.number.Load() + 1
	before, err := cpu(s.pid())
	if err != nil {
		return result{}, err
	}
	begun := time.Now()
	l.end = begun.Add(o.duration)
	if err := l.run(ctx); err != nil {
		return result{}, err
	}
	took := time.Since(begun)
	last, arrived, twice, err := env.drained(ctx, first)
	if err != nil {
		return result{}, err
	}
	after, err := cpu(s.pid())
	if err != nil {
		return result{}, err
	}
	n := int(l.sent.Load())
	slices.Sort(l.waits)
	at := func(p float64) float64 {
		return float64(l.waits[min(len(l.waits)-1, int(p*float64(len(l.waits))))]) / 1e6
	}
	return result{
		Accepted: float64(n) / took.Seconds(), Delivered: float64(arrived) / last.Sub(begun).Seconds(),
		CPU: (after - before).Seconds() / float64(n) * 1000, P50: at(0.5), P99: at(0.99),
		Messages: n, Lost: n - arrived, Twice: twice,
	}, nil
}

func warm(ctx context.Context, env *stage, s server, plain bool) error {
	c, err := dial(ctx, s.address(plain), env.tls(plain))
	if err != nil {
		return err
	}
	defer c.quit()
	n := env.number.Add(1)
	if _, err := c.send(n, text(1000), true); err != nil {
		return err
	}
	_, _, _, err = env.drained(ctx, n)
	return err
}

// drained waits until the sink has every message from first on, or nothing
// more comes.
func (e *stage) drained(ctx context.Context, first int64) (last time.Time, arrived, twice int, err error) {
	to := e.number.Load() + 1
	for end := time.Now().Add(drainTime); ; {
		arrived, twice, last = e.sink.tally(first, to)
		if arrived == int(to-first) || time.Now().After(end) {
			return last, arrived, twice, nil
		}
		select {
		case <-ctx.Done():
			return last, 0, 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// idleMemory opens sessions that have logged in and do nothing, and returns
// what each costs the server, in KiB of proportional set size, beyond what the
// server took when nobody had ever logged in: what the logins have left behind
// is on the bill.
func idleMemory(ctx context.Context, env *stage, s server, n int) (float64, error) {
	time.Sleep(2 * time.Second)
	before, err := pss(s.pid())
	if err != nil {
		return 0, err
	}
	var open []*client
	defer func() {
		for _, c := range open {
			c.quit()
		}
	}()
	for len(open) < n {
		c, err := dial(ctx, s.address(false), env.clientTLS)
		if err != nil {
			return 0, fmt.Errorf("session %d: %w", len(open)+1, err)
		}
		open = append(open, c)
	}
	time.Sleep(3 * time.Second)
	after, err := pss(s.pid())
	return float64(after-before) / float64(n), err
}
