package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// pack is a file of bodies. refs and live are guarded by Queue.mu.
type pack struct {
	no   uint64
	path string
	refs int   // entries whose body is here
	live int64 // their octets
	size int64
}

const packExt = ".pack"

func (q *Queue) packPath(no uint64) string {
	return filepath.Join(q.packDir, fmt.Sprintf("%d%s", no, packExt))
}

// sizeHint is how many octets to make room for before the body is read.
func sizeHint(r io.Reader, limit int) int {
	if l, ok := r.(interface{ Len() int }); ok {
		return min(l.Len(), limit)
	}
	return min(8<<10, limit)
}

// fill appends the body to buf. more says that it is longer than limit: then
// limit octets of it and one more have been read.
func fill(buf []byte, r io.Reader, limit int) (out []byte, more bool, err error) {
	end := len(buf) + limit
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(8<<10, len(buf)))
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), end+1)])
		buf = buf[:len(buf)+n]
		if len(buf) > end {
			return buf, true, nil
		}
		if err == io.EOF {
			return buf, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// spill writes a large body to a pack of its own, durable before the record
// that names it.
func (q *Queue) spill(ctx context.Context, ent *entry, head []byte, rest io.Reader) error {
	pk, w, err := q.newPack()
	if err != nil {
		return err
	}
	// Not longer than what the limit lets in: a flood must not fill the disk first.
	err = w.copy(ctx, io.MultiReader(bytes.NewReader(head), rest), func(n int64) error {
		q.mu.Lock()
		defer q.mu.Unlock()
		if err := q.alive(); err != nil {
			return err
		}
		return q.withinLimits(n)
	})
	if err == nil {
		err = w.finish()
	}
	if err == nil {
		err = syncDir(q.packDir)
	}
	if err != nil {
		q.discard(pk)
		if isFull(err) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		return err
	}
	ent.size = w.off
	ent.place = place{Pack: pk.no, Len: w.off, Sum: w.sum}
	ent.pack = pk
	q.mu.Lock()
	pk.live, pk.size = w.off, w.off
	q.mu.Unlock()
	return nil
}

// packWriter appends bodies to a new pack.
type packWriter struct {
	d   disk
	f   *os.File
	off int64
	sum uint32
}

// newPack makes an empty pack with one reference, the maker's.
func (q *Queue) newPack() (*pack, *packWriter, error) {
	no := q.fileNo.Add(1)
	pk := &pack{no: no, path: q.packPath(no), refs: 1}
	f, err := q.opt.disk.create(pk.path, 0)
	if err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return nil, nil, err
	}
	q.mu.Lock()
	q.packs[no] = pk
	q.mu.Unlock()
	return pk, &packWriter{d: q.opt.disk, f: f}, nil
}

func (w *packWriter) append(b []byte) error {
	if err := w.d.write(w.f, b, w.off); err != nil {
		return err
	}
	w.off += int64(len(b))
	w.sum = crc32.Update(w.sum, crc32.MakeTable(crc32.Castagnoli), b)
	return nil
}

func (w *packWriter) copy(ctx context.Context, r io.Reader, allow func(int64) error) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := errors.Join(ctx.Err(), allow(w.off+int64(n))); err != nil {
				return err
			}
			if err := w.append(buf[:n]); err != nil {
				return fmt.Errorf("write message: %w", err)
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return w.eof(err, r)
		}
		if err != nil {
			return fmt.Errorf("read message: %w", err)
		}
	}
}

// eof tells the end of the body from a reader that itself reports a cut:
// ReadFull gives io.ErrUnexpectedEOF for both.
func (w *packWriter) eof(err error, r io.Reader) error {
	if err == io.EOF {
		return nil
	}
	var one [1]byte
	if _, again := r.Read(one[:]); again != io.EOF {
		return fmt.Errorf("read message: %w", err)
	}
	return nil
}

// finish syncs and closes the file.
func (w *packWriter) finish() error {
	return errors.Join(w.d.sync(w.f), w.f.Close())
}

// discard gives up the maker's reference to a pack.
func (q *Queue) discard(pk *pack) {
	if pk == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unref(pk, 0)
}

// unref gives up a reference to a pack. The caller holds the lock.
func (q *Queue) unref(pk *pack, n int64) {
	if pk == nil {
		return
	}
	pk.refs--
	pk.live -= n
	if pk.refs == 0 {
		q.kick()
	}
}

// Body opens an item's message. A damaged one gives ErrCorrupt, here or from
// Read in the place of io.EOF, and is set aside.
func (q *Queue) Body(id string) (io.ReadCloser, error) {
	q.mu.Lock()
	e, err := q.find(id)
	if err != nil {
		q.mu.Unlock()
		return nil, err
	}
	if e.cache != nil || e.size == 0 {
		b := e.cache
		q.mu.Unlock()
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if e.pack != nil {
		f, err := os.Open(e.pack.path) // under the lock: the tender may move the body
		pl := e.place
		q.mu.Unlock()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return &packReader{q: q, e: e, f: f, r: io.NewSectionReader(f, pl.Off, pl.Len), left: pl.Len, want: pl.Sum}, nil
	}
	b, err := q.readInline(e)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// readInline reads a body from the log. Called with the lock held, returns
// without it.
func (q *Queue) readInline(e *entry) ([]byte, error) {
	seg, off, n, start := e.seg, e.off, e.payload, e.start
	seg.readers++
	q.mu.Unlock()
	b := make([]byte, headerSize+n)
	_, err := seg.f.ReadAt(b, off)
	q.mu.Lock()
	if seg.readers--; seg.readers == 0 {
		q.kick()
	}
	q.mu.Unlock()
	if err == nil {
		if h, ok := readHeader(b, seg.nonce); !ok || h.id != e.id || h.sum != checksum(b[headerSize:]) {
			err = errors.New("checksum does not agree")
		}
	}
	if err != nil {
		q.setAside(e, b, err)
		return nil, fmt.Errorf("read %s: %w", formatID(e.id), ErrCorrupt)
	}
	return b[start : start+int(e.size)], nil
}

// packReader reads a body and checks it on the way.
type packReader struct {
	q    *Queue
	e    *entry
	f    *os.File
	r    io.Reader
	left int64
	sum  uint32
	want uint32
}

func (p *packReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.sum = crc32.Update(p.sum, crc32.MakeTable(crc32.Castagnoli), b[:n])
	p.left -= int64(n)
	if err == io.EOF && (p.left != 0 || p.sum != p.want) {
		p.q.setAside(p.e, nil, errors.New("checksum of its pack does not agree"))
		return n, fmt.Errorf("read %s: %w", formatID(p.e.id), ErrCorrupt)
	}
	return n, err
}

func (p *packReader) Close() error { return p.f.Close() }
