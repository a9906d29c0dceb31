package queue

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
)

// replay rebuilds the index from segments, shown to it in order of use. It
// touches no file, so that tests can show it every prefix of a log.
type replay struct {
	log  *slog.Logger
	live map[uint64]*entry
	bad  map[uint64]badRecord // messages that cannot be read, and nothing later about them
	gaps []gap
	last uint64 // highest id seen
	err  error

	seg *segment // being scanned
	buf []byte
}

// badRecord is a message whose header is whole and whose payload is not.
type badRecord struct {
	raw   []byte
	cause error
}

// gap is a stretch of a segment where even headers are unreadable.
type gap struct {
	seg *segment
	off int
	raw []byte
}

func newReplay(log *slog.Logger) *replay {
	return &replay{log: log, live: map[uint64]*entry{}, bad: map[uint64]badRecord{}}
}

// segment takes in one segment's content.
func (r *replay) segment(seg *segment, content []byte) error {
	r.seg, r.buf = seg, content
	seg.off = int64(scan(content, seg.nonce, r))
	return r.err
}

func (r *replay) damage(from, to int) {
	r.gaps = append(r.gaps, gap{seg: r.seg, off: from, raw: slices.Clone(r.buf[from:to])})
}

func (r *replay) record(off int, h header, payload []byte, whole bool) {
	r.last = max(r.last, h.id)
	switch h.kind {
	case kindMessage:
		r.message(off, h, payload, whole)
	case kindUpdate:
		r.update(off, h, payload, whole)
	case kindRemove:
		// The header alone says it all, and has a checksum of its own.
		delete(r.live, h.id)
		delete(r.bad, h.id)
	default:
		// A damaged header does not get here: this is whole, and not ours.
		r.err = fmt.Errorf("read %s: record of kind %d, from a newer synward: run that one", r.seg.path, h.kind)
	}
}

func (r *replay) message(off int, h header, payload []byte, whole bool) {
	err := fmt.Errorf("checksum does not agree")
	var m meta
	var body []byte
	if whole {
		m, body, err = parseMessage(payload)
	}
	if err != nil {
		if r.live[h.id] == nil {
			r.bad[h.id] = badRecord{raw: slices.Clone(payload), cause: err}
		} else {
			r.log.Warn("damaged copy of a message: the earlier one stands", "item", formatID(h.id), "path", r.seg.path, "offset", off)
		}
		return
	}
	e := &entry{
		id: h.id, meta: m, size: int64(len(body)), heapIdx: -1,
		seg: r.seg, off: int64(off), payload: len(payload),
		start: headerSize + len(payload) - len(body),
	}
	if m.State != nil {
		e.st = *m.State
	}
	if m.Body != nil {
		e.place, e.size, e.start = *m.Body, m.Body.Len, 0
	}
	e.State, e.Body = nil, nil
	r.live[h.id] = e
	delete(r.bad, h.id)
}

func (r *replay) update(off int, h header, payload []byte, whole bool) {
	e := r.live[h.id]
	if e == nil {
		return // set aside, or removed
	}
	var st state
	err := fmt.Errorf("checksum does not agree")
	if whole {
		err = json.Unmarshal(payload, &st)
	}
	for _, d := range st.Done {
		if d.Rcpt < 0 || d.Rcpt >= len(e.Rcpts) {
			err = fmt.Errorf("result of recipient %d", d.Rcpt)
		}
	}
	if err != nil {
		r.log.Error("damaged state of an item: an earlier one stands", "item", formatID(h.id), "path", r.seg.path, "offset", off, "cause", err)
		return
	}
	e.st = st
}

// entries returns what is live, the oldest first.
func (r *replay) entries() []*entry {
	all := make([]*entry, 0, len(r.live))
	for _, e := range r.live {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return all
}
