package queue

import (
	"errors"
	"fmt"
	"time"
)

// pending is a record on its way to the disk.
type pending struct {
	buf  []byte // sealed
	e    *entry
	kind kind
	body int // where the body begins in buf, for kindMessage; 0: in a pack

	seg *segment // where it came to lie
	off int64

	wait  chan signal // nil: nobody waits
	done  bool
	err   error
	fresh bool        // an Add: dropped where there is no room, admitted by size
	then  func(error) // runs under the lock
}

// signal wakes a waiter: its record is done, or it shall lead.
type signal struct{ lead bool }

const maxBatch = 4 << 20 // octets of one commit; bounds the leader's buffer

// commit writes a record and returns once it is durable.
// The caller holds the lock and has admitted the record; commit releases it.
func (q *Queue) commit(p *pending) error {
	p.wait = make(chan signal, 1)
	q.push(p)
	if q.leading {
		q.mu.Unlock()
		s := <-p.wait
		if !s.lead {
			return p.err
		}
		q.mu.Lock()
	}
	q.leading = true
	for !p.done {
		q.leadOnce()
	}
	q.handOn()
	q.mu.Unlock()
	return p.err
}

// later queues a record that rides the next commit. The caller holds the lock.
func (q *Queue) later(p *pending) {
	q.push(p)
	if !q.leading {
		q.armFlush(q.opt.FlushDelay)
	}
}

func (q *Queue) push(p *pending) {
	q.pend = append(q.pend, p)
	q.claimed += int64(len(p.buf))
}

// handOn passes the lead to the next that waits, or ends it.
func (q *Queue) handOn() {
	for _, p := range q.pend {
		if p.wait != nil {
			p.wait <- signal{lead: true}
			return
		}
	}
	q.leading = false
	q.idle.Broadcast()
	if len(q.pend) > 0 {
		q.armFlush(q.opt.FlushDelay)
	}
}

// armFlush makes sure that what is pending is written within d.
func (q *Queue) armFlush(d time.Duration) {
	if q.armed || q.closed {
		return
	}
	q.armed = true
	time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.armed = false
		if q.leading || q.broken != nil || len(q.pend) == 0 {
			return
		}
		q.leading = true
		q.leadOnce()
		q.handOn()
	})
}

// leadOnce writes and syncs one batch. Called with the lock held, which it
// gives up meanwhile, and with leading set by the caller.
func (q *Queue) leadOnce() {
	n, size := 0, 0
	for n < len(q.pend) && (n == 0 || size+len(q.pend[n].buf) <= maxBatch) {
		size += len(q.pend[n].buf)
		n++
	}
	batch := q.pend[:n:n]
	q.pend = q.pend[n:]
	q.active.writing = true
	q.mu.Unlock()

	written, err := 0, q.broken
	if err == nil {
		written, err = q.write(batch)
	}

	q.mu.Lock()
	for _, p := range batch[:written] {
		q.finish(p)
	}
	q.clearWriting()
	if err != nil {
		q.giveUp(batch[written:], err)
	}
	q.room = q.active.size - q.active.off
	q.admitted.Broadcast()
}

// write puts a batch into the log, rolling over to new segments, and returns
// how many of its records are durable.
func (q *Queue) write(batch []*pending) (durable int, err error) {
	seg := q.active // only the leader changes it
	buf := q.buf[:0]
	defer func() { q.buf = buf[:0] }()
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		if err := q.opt.disk.write(seg.f, buf, seg.off); err != nil {
			return fmt.Errorf("%w: write %s: %w", ErrBroken, seg.path, err)
		}
		if err := q.opt.disk.sync(seg.f); err != nil {
			return fmt.Errorf("%w: sync %s: %w", ErrBroken, seg.path, err)
		}
		seg.off += int64(len(buf))
		buf = buf[:0]
		return nil
	}
	for i, p := range batch {
		if seg.off+int64(len(buf)+len(p.buf)) > seg.size {
			if err := flush(); err != nil {
				return durable, err
			}
			durable = i
			if seg, err = q.roll(); err != nil {
				return durable, err
			}
		}
		stamp(p.buf, seg.nonce)
		p.seg, p.off = seg, seg.off+int64(len(buf))
		buf = append(buf, p.buf...)
	}
	if err := flush(); err != nil {
		return durable, err
	}
	return len(batch), nil
}

// finish books a durable record and wakes who waits for it.
func (q *Queue) finish(p *pending) {
	switch p.kind {
	case kindMessage:
		q.settleAt(p)
	case kindRemove:
		q.drop(p.e)
	}
	q.end(p, nil)
}

func (q *Queue) end(p *pending, err error) {
	q.claimed -= int64(len(p.buf))
	p.done, p.err, p.buf = true, err, nil
	if p.then != nil {
		p.then(err)
	}
	if p.wait != nil {
		p.wait <- signal{}
	}
}

// giveUp deals with the records that could not be written.
func (q *Queue) giveUp(rest []*pending, err error) {
	if !isFull(err) || errors.Is(err, ErrBroken) {
		if q.broken == nil {
			if !errors.Is(err, ErrBroken) {
				err = fmt.Errorf("%w: %w", ErrBroken, err)
			}
			q.broken = err
			if !q.closed {
				close(q.stopped)
			}
			q.opt.Log.Error("queue stopped: nothing is accepted or delivered until a restart", "error", err)
		}
		rest = append(rest, q.pend...)
		q.pend = nil
		for _, p := range rest {
			q.end(p, q.broken)
		}
		return
	}
	// The reserve is used up. A new message is turned away; what became of
	// accepted ones waits in memory for room.
	var keep []*pending
	for _, p := range rest {
		if p.fresh {
			q.end(p, ErrFull)
			continue
		}
		if p.wait != nil {
			p.done, p.err = true, fmt.Errorf("%w: the change is in force, but a crash would undo it", ErrFull)
			p.wait <- signal{}
			p.wait = nil
		}
		keep = append(keep, p)
	}
	q.pend = append(keep, q.pend...)
	q.full = true
	q.armFlush(time.Second)
}

func (q *Queue) clearWriting() {
	for i := len(q.segs) - 1; i >= 0 && q.segs[i].writing; i-- {
		q.segs[i].writing = false
	}
}

// admit waits until a new record of n octets has room with the reserve of one
// segment untouched, which is kept for the results of deliveries.
// The caller holds the lock.
func (q *Queue) admit(n int) error {
	for {
		if q.broken != nil {
			return q.broken
		}
		if q.closed {
			return ErrClosed
		}
		need := q.claimed + int64(n)
		largest := q.opt.SegmentSize / 4 // what may stay unused at a segment's end
		beyond := q.room - largest + int64(len(q.spares)-1)*(q.opt.SegmentSize-largest)
		if len(q.spares) > 0 && (need <= q.room || need <= beyond) {
			return nil
		}
		if q.full {
			return fmt.Errorf("%w: no room on the disk of %s", ErrFull, q.dir)
		}
		q.kick()
		q.admitted.Wait()
	}
}
