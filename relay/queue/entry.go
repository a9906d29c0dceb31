package queue

import (
	"fmt"
	"slices"
	"time"
)

// entry is an item in the index. Guarded by Queue.mu, save what never changes
// after Add: id, meta, size.
type entry struct {
	id uint64
	meta
	size int64
	st   state
	next time.Time // when it is due; st.Next is what the log says

	// Where its record is, and its body.
	seg     *segment
	off     int64 // of the record's header
	payload int   // octets of the record's payload
	start   int   // of the body within the record
	pack    *pack // nil: the body is in the record
	place   place
	cache   []byte // the body, until the first attempt is over

	heapIdx  int
	inFlight bool
	forced   bool
	gone     bool
}

func (e Envelope) clone() Envelope {
	e.Rcpts = slices.Clone(e.Rcpts)
	return e
}

// item copies an entry for the outside.
func (e *entry) item() Item {
	return Item{
		ID: formatID(e.id), Envelope: e.Envelope.clone(), Size: e.size, Received: e.Received,
		Attempts: e.st.Attempts, Next: e.next, LastErr: e.st.Err, Done: slices.Clone(e.st.Done),
		Held: e.st.Held, Warned: e.st.Warned, Forced: e.forced,
	}
}

// end books the ends of recipients; the first for a recipient counts.
func (e *entry) end(results []Result) error {
	for _, r := range results {
		if r.Rcpt < 0 || r.Rcpt >= len(e.Rcpts) {
			return fmt.Errorf("settle %s: no recipient %d", formatID(e.id), r.Rcpt)
		}
		if !slices.ContainsFunc(e.st.Done, func(d Result) bool { return d.Rcpt == r.Rcpt }) {
			e.st.Done = append(e.st.Done, r)
		}
	}
	return nil
}

// settleAt books where an entry's record has come to lie, for a new entry and
// for one that was written again. The caller holds the lock.
func (q *Queue) settleAt(p *pending) {
	e := p.e
	q.leave(e)
	h, _ := readHeader(p.buf, p.seg.nonce)
	e.seg, e.off, e.payload, e.start = p.seg, p.off, int(h.length), p.body
	e.seg.entries[e] = struct{}{}
	q.live += int64(recordSize(e.payload))
	if n := e.size; p.fresh && e.start > 0 && q.cached+n <= q.opt.CacheBytes {
		e.cache = p.buf[e.start : e.start+int(e.size)]
		q.cached += n
	}
}

// drop books that an entry's removal is durable: its octets are free.
func (q *Queue) drop(e *entry) {
	q.leave(e)
	q.unref(e.pack, e.place.Len)
}

// leave takes an entry off its segment.
func (q *Queue) leave(e *entry) {
	if e.seg == nil {
		return
	}
	q.live -= int64(recordSize(e.payload))
	delete(e.seg.entries, e)
	if len(e.seg.entries) == 0 {
		q.kick()
	}
	e.seg = nil
}

// forget drops the cached body. The caller holds the lock.
func (q *Queue) forget(e *entry) {
	q.cached -= int64(len(e.cache))
	e.cache = nil
}

// dueHeap orders entries by when they are due, then by age.
type dueHeap []*entry

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if h[i].next.Equal(h[j].next) {
		return h[i].id < h[j].id
	}
	return h[i].next.Before(h[j].next)
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIdx, h[j].heapIdx = i, j
}

func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.heapIdx = len(*h)
	*h = append(*h, e)
}

func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.heapIdx = -1
	return e
}
