package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// load replays the directory into the fresh queue. It goes on behind the last
// readable record, so that a restart needs no room: what is written over there
// was never acknowledged.
func (q *Queue) load() error {
	q.fileNo.Store(uint64(q.opt.Now().UnixMicro())) // no number is used twice, not even after a restart
	if err := q.openLog(); err != nil {
		return err
	}
	if err := q.openPacks(); err != nil {
		return err
	}
	r := newReplay(q.opt.Log)
	buf := []byte(nil)
	for _, seg := range q.segs {
		buf = slices.Grow(buf[:0], int(seg.size))[:seg.size]
		if _, err := seg.f.ReadAt(buf, 0); err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", seg.path, err)
		}
		if err := r.segment(seg, buf); err != nil {
			return err
		}
	}
	q.lastID.Store(r.last)
	if n := len(q.segs); n > 0 {
		q.active = q.segs[n-1]
	} else if _, err := q.roll(); err != nil {
		if isFull(err) {
			return fmt.Errorf("no room for a segment of %d octets: %w; free some and start again", q.opt.SegmentSize, err)
		}
		return err
	}
	q.room = max(0, q.active.size-q.active.off)
	q.index(r)
	return nil
}

// openLog opens segments and spares.
func (q *Queue) openLog() error {
	files, err := os.ReadDir(q.logDir)
	if err != nil {
		return err
	}
	for _, de := range files {
		path := filepath.Join(q.logDir, de.Name())
		seq, nonce, ok := parseSegmentName(de.Name())
		isSpare := strings.HasPrefix(de.Name(), sparePre)
		if strings.HasSuffix(de.Name(), tempExt) {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		if !ok && !isSpare {
			continue // not ours
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		fi, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		switch {
		case ok:
			q.segs = append(q.segs, &segment{seq: seq, nonce: nonce, path: path, f: f, size: fi.Size(), entries: map[*entry]struct{}{}})
		case fi.Size() == q.opt.SegmentSize && len(q.spares) < maxSpares:
			q.spares = append(q.spares, &spare{path: path, f: f})
		default:
			if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(q.segs, func(a, b *segment) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	if n := len(q.segs); n > 0 {
		q.nextSeq = q.segs[n-1].seq + 1
	}
	return nil
}

// openPacks lists the packs that are there.
func (q *Queue) openPacks() error {
	files, err := os.ReadDir(q.packDir)
	if err != nil {
		return err
	}
	for _, de := range files {
		no, err := strconv.ParseUint(strings.TrimSuffix(de.Name(), packExt), 10, 64)
		if err != nil || !strings.HasSuffix(de.Name(), packExt) {
			continue
		}
		fi, err := de.Info()
		if err != nil {
			return err
		}
		q.packs[no] = &pack{no: no, path: filepath.Join(q.packDir, de.Name()), size: fi.Size()}
	}
	return nil
}

// index takes over what the replay found.
func (q *Queue) index(r *replay) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range r.entries() {
		if e.place.Pack != 0 {
			pk := q.packs[e.place.Pack]
			if pk == nil {
				pk = &pack{no: e.place.Pack, path: q.packPath(e.place.Pack)} // Body will say ErrCorrupt
				q.packs[pk.no] = pk
			}
			pk.refs++
			pk.live += e.place.Len
			e.pack = pk
		}
		e.seg.entries[e] = struct{}{}
		q.live += int64(recordSize(e.payload))
		if e.next = e.st.Next; e.next.IsZero() {
			e.next = e.Received
		}
		if e.st.Attempts > 0 {
			q.deferred++
		}
		if e.st.Held {
			q.held++
		}
		q.enter(e)
	}
	q.report(r)
}

// report keeps what was damaged, says so, and records that it is dealt with.
func (q *Queue) report(r *replay) {
	for _, g := range r.gaps {
		name := fmt.Sprintf("%s-%d.raw", filepath.Base(g.seg.path), g.off)
		err := q.keepCorrupt(name, func(w io.Writer) error { _, err := w.Write(g.raw); return err })
		q.opt.Log.Error("part of the log is damaged: set aside", "path", g.seg.path, "offset", g.off,
			"octets", len(g.raw), "file", filepath.Join("corrupt", name), "error", err)
	}
	for id, b := range r.bad {
		name := formatID(id) + ".raw"
		err := q.keepCorrupt(name, func(w io.Writer) error { _, err := w.Write(b.raw); return err })
		q.opt.Log.Error("message is damaged, or was being written when the machine stopped: set aside, not delivered",
			"item", formatID(id), "file", filepath.Join("corrupt", name), "cause", b.cause, "error", err)
		if err == nil {
			err = q.submit(&entry{id: id}, kindRemove, []byte(`{"why":"corrupt"}`), false)
		}
		if err != nil {
			q.opt.Log.Error("set aside", "item", formatID(id), "error", err)
		}
	}
}
