package queue

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	wantSpares = 2 // one to roll on to, one in reserve
	maxSpares  = 4
)

// Queue is an open spool. Its methods may be called from several goroutines.
type Queue struct {
	dir, logDir, packDir string

	opt    Options
	lock   *os.File
	fileNo atomic.Uint64
	lastID atomic.Uint64
	tended chan struct{} // closed when the tender has ended

	mu         sync.Mutex
	admitted   *sync.Cond // room or state changed
	idle       *sync.Cond // nobody leads
	items      map[uint64]*entry
	due        dueHeap
	wake       chan struct{} // something became due, capacity 1
	kicked     chan struct{} // the tender has work, capacity 1
	stopped    chan struct{} // closed when broken or closed
	packs      map[uint64]*pack
	oldest     []*entry // in order of arrival, with gone ones among them
	oldestGone int
	bytes      int64
	adding     int
	addBytes   int64
	cached     int64
	deferred   int
	held       int
	damaged    int // set aside, in corrupt/
	broken     error
	closed     bool

	// The log. The leader alone writes, see commit.go.
	segs    []*segment // in order of use; the last is active
	active  *segment
	spares  []*spare
	nextSeq uint64
	pend    []*pending
	live    int64 // octets of records in the log that count
	claimed int64 // octets pending or being written
	room    int64 // octets left in the active segment
	leading bool
	armed   bool
	full    bool // no spare can be made
	buf     []byte
}

// Open takes the spool in dir, made where it is missing, and replays it.
// Errors: ErrLocked, or one of the file system's.
func Open(dir string, o Options) (*Queue, error) {
	q := &Queue{
		dir: dir, logDir: filepath.Join(dir, "log"), packDir: filepath.Join(dir, "packs"),
		opt:     o.withDefaults(),
		tended:  make(chan struct{}),
		items:   map[uint64]*entry{},
		packs:   map[uint64]*pack{},
		wake:    make(chan struct{}, 1),
		kicked:  make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	q.admitted, q.idle = sync.NewCond(&q.mu), sync.NewCond(&q.mu)
	for _, d := range []string{dir, q.logDir, q.packDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open queue: %w", err)
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	var err error
	if q.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := q.load(); err != nil {
		q.closeFiles()
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	q.damaged = countDamaged(dir)
	q.opt.Log.Info("queue open", "dir", dir, "items", len(q.items), "octets", q.bytes, "segments", len(q.segs))
	go q.tend()
	q.kick()
	return q, nil
}

// Close writes what is pending and releases the spool. Methods called after it
// fail with ErrClosed.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	if q.broken == nil {
		close(q.stopped)
	}
	q.admitted.Broadcast()
	for q.leading {
		q.idle.Wait()
	}
	for tries := 0; len(q.pend) > 0 && q.broken == nil && tries < 2; tries++ {
		q.leading = true
		q.leadOnce()
		q.leading = false
	}
	var err error
	if len(q.pend) > 0 {
		err = fmt.Errorf("close queue: %w: %d results not written, these may be delivered again", ErrFull, len(q.pend))
	}
	q.mu.Unlock()
	q.kick()
	<-q.tended
	q.mu.Lock()
	defer q.mu.Unlock()
	return errors.Join(err, q.broken, q.closeFiles())
}

func (q *Queue) closeFiles() error {
	var errs []error
	for _, s := range q.segs {
		errs = append(errs, s.f.Close())
	}
	for _, s := range q.spares {
		errs = append(errs, s.f.Close())
	}
	q.segs, q.spares = nil, nil
	return errors.Join(append(errs, q.lock.Close())...)
}

// Add stores a message and returns its id once it is durable. Errors: ErrFull
// (try later), ErrEnvelope, ErrBroken, ErrClosed, or the body's own read error.
// After an error the message is not in the queue, save after ErrBroken, where
// it may turn up on the next start.
func (q *Queue) Add(ctx context.Context, e Envelope, body io.Reader) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := e.check(); err != nil {
		return "", err
	}
	m := meta{Envelope: e.clone(), Received: q.opt.Now().UTC()}
	if m.Hold {
		m.Hold, m.State = false, &state{Held: true}
	}
	buf, err := startMessage(m, sizeHint(body, q.opt.InlineMax))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	start := len(buf)
	if int64(start) > q.opt.SegmentSize/8 {
		return "", fmt.Errorf("%w: %d octets of recipients", ErrEnvelope, start)
	}
	buf, more, err := fill(buf, body, q.opt.InlineMax)
	if err != nil {
		return "", fmt.Errorf("read message: %w", err)
	}
	ent := &entry{meta: m, size: int64(len(buf) - start), st: state{Held: e.Hold}, heapIdx: -1}
	ent.State = nil
	if more {
		if err := q.spill(ctx, ent, buf[start:], body); err != nil {
			return "", err
		}
		m.Body = &ent.place
		if buf, err = startMessage(m, 0); err != nil {
			return "", fmt.Errorf("%w: %w", ErrEnvelope, err)
		}
		start = 0
	}
	if err := q.insert(ent, buf, start); err != nil {
		q.discard(ent.pack)
		return "", err
	}
	return formatID(ent.id), nil
}

// insert commits a new entry's record.
func (q *Queue) insert(ent *entry, buf []byte, start int) error {
	ent.id = q.takeID()
	p := &pending{e: ent, kind: kindMessage, body: start, fresh: true, buf: seal(buf, ent.id, kindMessage)}
	ent.next = ent.Received
	q.mu.Lock()
	if err := q.withinLimits(ent.size); err != nil {
		q.mu.Unlock()
		return err
	}
	if err := q.admit(len(p.buf)); err != nil {
		q.mu.Unlock()
		return err
	}
	q.adding++
	q.addBytes += ent.size
	p.then = func(err error) {
		q.adding--
		q.addBytes -= ent.size
		if err == nil {
			q.enter(ent)
			if ent.st.Held {
				q.held++
			}
		}
	}
	return q.commit(p)
}

func (q *Queue) withinLimits(size int64) error {
	if n := q.opt.MaxItems; n > 0 && len(q.items)+q.adding >= n {
		return fmt.Errorf("%w: %d items", ErrFull, n)
	}
	if n := q.opt.MaxBytes; n > 0 && q.bytes+q.addBytes+size > n {
		return fmt.Errorf("%w: %d octets", ErrFull, n)
	}
	return nil
}

func (q *Queue) takeID() uint64 {
	for {
		last := q.lastID.Load()
		id := newID(q.opt.Now(), last)
		if q.lastID.CompareAndSwap(last, id) {
			return id
		}
	}
}

// enter puts an entry into the index. The caller holds the lock.
func (q *Queue) enter(ent *entry) {
	q.items[ent.id] = ent
	q.bytes += ent.size
	q.oldest = append(q.oldest, ent)
	q.schedule(ent)
}

// schedule puts an entry into the heap of what is due, if it may be tried.
// The caller holds the lock.
func (q *Queue) schedule(ent *entry) {
	if ent.gone || ent.inFlight || ent.st.Held {
		if ent.heapIdx >= 0 {
			heap.Remove(&q.due, ent.heapIdx)
		}
		return
	}
	if ent.heapIdx >= 0 {
		heap.Fix(&q.due, ent.heapIdx)
	} else {
		heap.Push(&q.due, ent)
	}
	if ent.heapIdx == 0 {
		notify(q.wake)
	}
}

// Next waits for the next item that is due and hands it out; until Settle or
// Postpone is called for it nobody else gets it. Errors: the context's,
// ErrClosed, ErrBroken.
func (q *Queue) Next(ctx context.Context) (Item, error) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		q.mu.Lock()
		if err := q.alive(); err != nil {
			q.mu.Unlock()
			return Item{}, err
		}
		wait := time.Hour
		if len(q.due) > 0 {
			wait = q.due[0].next.Sub(q.opt.Now())
			if wait <= 0 {
				ent := heap.Pop(&q.due).(*entry)
				ent.inFlight = true
				if len(q.due) > 0 {
					notify(q.wake) // for another that waits here
				}
				it := ent.item()
				ent.forced = false
				q.mu.Unlock()
				return it, nil
			}
		}
		q.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return Item{}, ctx.Err()
		case <-q.wake:
		case <-timer.C:
		case <-q.stopped:
		}
	}
}

// alive says why the queue does not serve. The caller holds the lock.
func (q *Queue) alive() error {
	if q.closed {
		return ErrClosed
	}
	return q.broken
}

func (q *Queue) kick() { notify(q.kicked) }

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
