package agent

import (
	"context"
	"sync"
)

// ring keeps the last records of a kind for those who ask later, and hands new
// ones to those who follow. A follower that is too slow loses records rather
// than holding the writer up; it learns how many.
type ring[T any] struct {
	mu     sync.Mutex
	buf    []T
	next   uint64 // number of the next record; buf[n % len] holds record n
	change chan struct{}
}

func newRing[T any](size int) *ring[T] {
	return &ring[T]{buf: make([]T, size), change: make(chan struct{})}
}

func (r *ring[T]) add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf[r.next%uint64(len(r.buf))] = v
	r.next++
	close(r.change)
	r.change = make(chan struct{})
}

// from copies the records from number n on, and returns the number after the
// last and a channel that closes when there are more. lost is how many from n
// on are no longer kept.
func (r *ring[T]) from(n uint64) (out []T, next, lost uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := uint64(len(r.buf))
	if oldest := r.next - min(r.next, size); n < oldest {
		lost, n = oldest-n, oldest
	}
	for ; n < r.next; n++ {
		out = append(out, r.buf[n%size])
	}
	return out, r.next, lost, r.change
}

// end is the number of the next record.
func (r *ring[T]) end() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// each calls fn for the kept records from number n on and, with follow, for each new one until
// the context ends or fn fails.
func (r *ring[T]) each(ctx context.Context, n uint64, follow bool, fn func(T) error) error {
	for {
		recs, next, _, more := r.from(n)
		for _, v := range recs {
			if err := fn(v); err != nil {
				return err
			}
		}
		n = next
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
