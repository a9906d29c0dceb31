package queue

import (
	"errors"
	"os"
	"time"
)

// tend keeps the log in shape: frees what is dead, keeps spares ready, moves
// what blocks. It ends when the queue is closed.
func (q *Queue) tend() {
	defer close(q.tended)
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-q.kicked:
		case <-retry.C:
		}
		q.mu.Lock()
		end := q.closed
		q.mu.Unlock()
		q.freePacks()
		q.freeSegments()
		if end {
			return
		}
		if !q.stock() {
			retry.Reset(time.Second)
		}
		for q.compact() {
			q.freeSegments()
			q.freePacks()
		}
	}
}

// freeSegments retires dead segments, from the oldest on and never past a live one.
func (q *Queue) freeSegments() {
	for {
		q.mu.Lock()
		s := q.segs[0]
		if s == q.active || s.writing || s.readers > 0 || len(s.entries) > 0 || q.broken != nil {
			q.mu.Unlock()
			return
		}
		q.segs = q.segs[1:]
		q.mu.Unlock()
		if err := q.retire(s); err != nil {
			q.opt.Log.Error("free segment", "path", s.path, "error", err)
			return
		}
		q.mu.Lock()
		q.full = false
		q.admitted.Broadcast()
		q.mu.Unlock()
	}
}

// freePacks removes the files that no item refers to any more.
func (q *Queue) freePacks() {
	q.mu.Lock()
	if q.broken != nil { // a record that failed may be on the disk all the same
		q.mu.Unlock()
		return
	}
	var dead []*pack
	for no, pk := range q.packs {
		if pk.refs == 0 {
			dead = append(dead, pk)
			delete(q.packs, no)
		}
	}
	q.mu.Unlock()
	for _, pk := range dead {
		if err := os.Remove(pk.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			q.opt.Log.Error("remove pack", "path", pk.path, "error", err)
		}
	}
}

// stock makes spares until there are enough. false: there is no room for one.
func (q *Queue) stock() bool {
	for {
		q.mu.Lock()
		enough := len(q.spares) >= wantSpares || q.closed || q.broken != nil
		if enough {
			q.full = false
			q.admitted.Broadcast()
		}
		q.mu.Unlock()
		if enough {
			return true
		}
		sp, err := q.makeSpare()
		q.mu.Lock()
		if err != nil {
			if !q.full {
				q.opt.Log.Error("no room for a new segment: new messages are turned away", "dir", q.logDir, "error", err)
			}
			q.full = true
			q.admitted.Broadcast()
			q.mu.Unlock()
			return false
		}
		q.spares = append(q.spares, sp)
		q.admitted.Broadcast()
		q.mu.Unlock()
	}
}

const (
	compactFrom   = 4 // segments in use below which nothing is moved
	compactFactor = 2 // segments may take so many times what is live in them
)

// compact writes the live items of the oldest segment again, at the log's
// head, where the log has become long and is mostly dead. Their bodies go to
// a pack, so that a message is copied once and later only its record.
func (q *Queue) compact() bool {
	q.mu.Lock()
	oldest := q.segs[0]
	used := int64(len(q.segs)-1) * q.opt.SegmentSize
	if len(q.segs) < compactFrom || used <= compactFactor*(q.live+q.opt.SegmentSize) || q.broken != nil || q.closed {
		q.mu.Unlock()
		return false
	}
	list := make([]*entry, 0, len(oldest.entries))
	for e := range oldest.entries {
		if !e.gone {
			list = append(list, e)
		}
	}
	q.mu.Unlock()
	if err := q.move(list); err != nil {
		q.opt.Log.Warn("cannot move waiting messages: the log stays long", "error", err)
		return false
	}
	return len(list) > 0 // what is gone, but not durably yet, ends with a kick
}

// move gives entries new records, and those with a body in the log a place in a pack.
func (q *Queue) move(list []*entry) error {
	places := map[*entry]place{}
	pk, err := q.repack(list, places)
	if err != nil {
		return err
	}
	defer q.discard(pk)
	var last *pending
	for _, e := range list {
		p, err := q.rewrite(e, pk, places)
		if err != nil {
			return err
		}
		if p != nil {
			last = p
		}
	}
	return q.await(last)
}

// await waits until a record that was queued is durable; not for ever, because
// where the disk is full it is the tender who makes room.
func (q *Queue) await(p *pending) error {
	if p == nil {
		return nil
	}
	done := make(chan struct{})
	q.mu.Lock()
	if p.done {
		q.mu.Unlock()
		return p.err
	}
	then := p.then
	p.then = func(err error) {
		if then != nil {
			then(err)
		}
		close(done)
	}
	q.mu.Unlock()
	select {
	case <-done:
		return p.err
	case <-time.After(time.Second):
		return ErrFull
	}
}

// repack writes the bodies to a new pack; nil where there are none.
func (q *Queue) repack(list []*entry, places map[*entry]place) (*pack, error) {
	var pk *pack
	var w *packWriter
	fail := func(err error) (*pack, error) {
		if w != nil {
			err = errors.Join(err, w.f.Close())
		}
		q.discard(pk)
		return nil, err
	}
	for _, e := range list {
		q.mu.Lock()
		if e.gone || e.pack != nil || e.size == 0 {
			q.mu.Unlock()
			continue
		}
		b, err := q.readInline(e)
		if err != nil {
			continue // set aside
		}
		if pk == nil {
			if pk, w, err = q.newPack(); err != nil {
				return fail(err)
			}
		}
		at := w.off
		if err := w.append(b); err != nil {
			return fail(err)
		}
		places[e] = place{Pack: pk.no, Off: at, Len: int64(len(b)), Sum: checksum(b)}
	}
	if pk == nil {
		return nil, nil
	}
	q.mu.Lock()
	pk.size = w.off
	q.mu.Unlock()
	if err := errors.Join(w.finish(), syncDir(q.packDir)); err != nil {
		w = nil
		return fail(err)
	}
	return pk, nil
}

// rewrite queues a new record for an entry as it is now; nil if it needs none.
func (q *Queue) rewrite(e *entry, pk *pack, places map[*entry]place) (*pending, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	pl, moved := places[e]
	if e.gone || q.alive() != nil || (!moved && e.pack == nil && e.size > 0) {
		return nil, nil
	}
	m := e.meta
	st := e.st
	m.State, m.Body = &st, nil
	switch {
	case moved:
		m.Body = &pl
	case e.pack != nil:
		at := e.place
		m.Body = &at
	}
	buf, err := startMessage(m, 0)
	if err != nil {
		return nil, err
	}
	p := &pending{e: e, kind: kindMessage, buf: seal(buf, e.id, kindMessage)}
	if moved {
		pk.refs++
		pk.live += pl.Len
		p.then = func(err error) {
			if err != nil {
				q.unref(pk, pl.Len)
				return
			}
			e.pack, e.place = pk, pl
		}
	}
	q.later(p)
	return p, nil
}
