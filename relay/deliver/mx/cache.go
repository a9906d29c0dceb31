package mx

import (
	"context"
	"sync"
	"time"
)

// maxCached is how many entries a cache keeps: whoever may send mail chooses
// the names.
const maxCached = 4096

// cache keeps answers until their time is over. A question that is being asked
// already is not asked again. The zero value is not usable.
type cache[V any] struct {
	now func() time.Time

	mu    sync.Mutex
	known map[string]*cached[V]
}

type cached[V any] struct {
	done  chan struct{} // closed when value is set
	value V
	until time.Time
}

func newCache[V any](now func() time.Time) *cache[V] {
	return &cache[V]{now: now, known: map[string]*cached[V]{}}
}

// get returns what is known for key, or asks. The asking goes on in the
// background where ctx ends first, for the next who wants to know.
func (c *cache[V]) get(ctx context.Context, key string, ask func() (V, time.Duration)) (V, error) {
	c.mu.Lock()
	e := c.known[key]
	if e == nil || !e.until.IsZero() && !c.now().Before(e.until) {
		e = &cached[V]{done: make(chan struct{})}
		c.evict()
		c.known[key] = e
		go func() {
			v, ttl := ask()
			c.mu.Lock()
			e.value, e.until = v, c.now().Add(ttl)
			c.mu.Unlock()
			close(e.done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-e.done:
		return e.value, nil
	case <-ctx.Done():
		var zero V
		return zero, ctx.Err()
	}
}

// peek returns what was last known for key, however old.
func (c *cache[V]) peek(key string) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.known[key]; e != nil && !e.until.IsZero() {
		return e.value, true
	}
	return v, false
}

// all returns what holds now.
func (c *cache[V]) all() map[string]V {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, m := c.now(), map[string]V{}
	for k, e := range c.known {
		if !e.until.IsZero() && now.Before(e.until) {
			m[k] = e.value
		}
	}
	return m
}

// evict makes room for one: what is over goes first, else any. The caller
// holds the lock.
func (c *cache[V]) evict() {
	if len(c.known) < maxCached {
		return
	}
	now := c.now()
	for k, e := range c.known {
		if !e.until.IsZero() && !now.Before(e.until) {
			delete(c.known, k)
		}
	}
	for k, e := range c.known {
		if len(c.known) < maxCached-maxCached/16 {
			return
		}
		if !e.until.IsZero() { // not one that is waited for
			delete(c.known, k)
		}
	}
}

// put sets what is known for key.
func (c *cache[V]) put(key string, v V, ttl time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evict()
	e := &cached[V]{done: make(chan struct{}), value: v, until: c.now().Add(ttl)}
	close(e.done)
	c.known[key] = e
}
