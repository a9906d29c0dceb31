package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// segment is one file of the log. Fields but off are guarded by Queue.mu.
type segment struct {
	seq     uint64
	nonce   uint64
	path    string
	f       *os.File
	size    int64
	off     int64               // end of what is written; the leader's alone
	entries map[*entry]struct{} // items whose message record is here
	writing bool                // part of a commit that is under way
	readers int                 // bodies being read
}

// spare is a segment in waiting.
type spare struct {
	path string
	f    *os.File
}

const (
	segmentExt = ".seg"
	sparePre   = "spare-"
	tempExt    = ".tmp"
)

func segmentName(seq, nonce uint64) string {
	return fmt.Sprintf("%012d-%016x%s", seq, nonce, segmentExt)
}

func parseSegmentName(name string) (seq, nonce uint64, ok bool) {
	if !strings.HasSuffix(name, segmentExt) {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(name, "%012d-%016x"+segmentExt, &seq, &nonce)
	return seq, nonce, err == nil && n == 2 && name == segmentName(seq, nonce)
}

// makeSpare writes a new spare segment. It holds no lock: this takes long.
func (q *Queue) makeSpare() (*spare, error) {
	path := filepath.Join(q.logDir, fmt.Sprintf("%s%d%s", sparePre, q.fileNo.Add(1), segmentExt))
	f, err := q.opt.disk.create(path+tempExt, q.opt.SegmentSize)
	if err != nil {
		return nil, err
	}
	// The temporary name keeps a half-written file from being taken after a crash.
	if err := os.Rename(path+tempExt, path); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path+tempExt))
	}
	return &spare{path: path, f: f}, nil
}

// roll makes a spare the active segment. The leader calls it, without the lock.
func (q *Queue) roll() (*segment, error) {
	q.mu.Lock()
	var sp *spare
	if n := len(q.spares); n > 0 {
		sp = q.spares[n-1]
		q.spares = q.spares[:n-1]
	}
	seq := q.nextSeq
	q.nextSeq++
	q.mu.Unlock()
	q.kick()
	if sp == nil {
		var err error
		if sp, err = q.makeSpare(); err != nil {
			return nil, err
		}
	}
	seg := &segment{
		seq: seq, nonce: rand.Uint64(), f: sp.f, size: q.opt.SegmentSize,
		entries: map[*entry]struct{}{}, writing: true,
	}
	seg.path = filepath.Join(q.logDir, segmentName(seq, seg.nonce))
	if err := os.Rename(sp.path, seg.path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	// Nothing may be written before the new name is durable: under its old
	// name the file might still be a segment with a life of its own.
	if err := syncDir(q.logDir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	q.mu.Lock()
	q.segs = append(q.segs, seg)
	q.active = seg
	q.mu.Unlock()
	return seg, nil
}

// retire frees a segment that has left q.segs: to the spares, or from the disk.
func (q *Queue) retire(seg *segment) error {
	q.mu.Lock()
	keep := len(q.spares) < maxSpares && seg.size == q.opt.SegmentSize
	q.mu.Unlock()
	if !keep {
		if err := errors.Join(seg.f.Close(), os.Remove(seg.path)); err != nil {
			return err
		}
		return syncDir(q.logDir)
	}
	path := filepath.Join(q.logDir, fmt.Sprintf("%s%d%s", sparePre, q.fileNo.Add(1), segmentExt))
	if err := os.Rename(seg.path, path); err != nil {
		return err
	}
	if err := syncDir(q.logDir); err != nil {
		return err
	}
	q.mu.Lock()
	q.spares = append(q.spares, &spare{path: path, f: seg.f})
	q.mu.Unlock()
	return nil
}
