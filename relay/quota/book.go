package quota

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The bounds of a book.
const (
	maxKeys    = 100_000
	maxKey     = 256 // bytes
	others     = "others"
	syncEvery  = time.Second
	pruneEvery = slotTime
	compactAt  = 16 << 20 // bytes; and twice what is needed
)

// Book is the counts of all keys, in memory and in a file. Its methods may be
// called from several goroutines.
type Book struct {
	path string
	now  func() time.Time
	log  *slog.Logger

	mu     sync.Mutex
	keys   map[string]*counter
	f      *os.File
	size   int64
	least  int64 // what the file took when it was last written anew
	dirty  bool  // written, not synced
	failed bool  // the last write failed, which has been said
}

// Receipt is what Take has counted, for Return.
type Receipt struct {
	key   string
	at    int64
	rcpts int
}

// Open reads the file at path, or makes it. A line that cannot be read is
// passed over, and said. log and now must be set.
func Open(path string, now func() time.Time, log *slog.Logger) (*Book, error) {
	b := &Book{path: path, now: now, log: log.With("component", "quota"), keys: map[string]*counter{}}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open quotas: %w", err)
	}
	b.f = f
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read quotas %s: %w", path, err), f.Close())
	}
	if err := b.compact(); err != nil { // also ends a line that was cut off
		b.log.Warn("quotas are kept in memory only", "error", err)
		b.failed = true
	}
	return b, nil
}

func (b *Book) load() error {
	r := bufio.NewReader(b.f)
	bad := 0
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // longer than any of ours
			bad++
			continue
		}
		if e, ok := parseLine(line); ok {
			b.replay(e)
		} else if len(bytes.TrimSpace(line)) > 0 {
			bad++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if bad > 0 {
		b.log.Warn("lines of the quotas' file cannot be read: passed over", "path", b.path, "lines", bad)
	}
	return nil
}

func (b *Book) replay(e entry) {
	_, c := b.counter(e.key)
	switch e.kind {
	case kindCount:
		i, found := slices.BinarySearchFunc(c.slots, e.at, func(s slot, at int64) int { return int(s.at - at) })
		if !found {
			c.slots = slices.Insert(c.slots, i, slot{})
		}
		c.slots[i] = slot{e.at, e.msgs, e.rcpts}
	case kindReset:
		*c = counter{}
	case kindTold:
		c.told = e.at
	}
}

// counter returns the counter of key, and the key that it is under: where there
// are too many, all the rest share one.
func (b *Book) counter(key string) (string, *counter) {
	if b.keys[key] == nil && (len(b.keys) >= maxKeys || len(key) > maxKey) {
		key = others
	}
	c := b.keys[key]
	if c == nil {
		c = &counter{}
		b.keys[key] = c
	}
	return key, c
}

// Look says whether key may hand in one message to so many recipients.
func (b *Book) Look(key string, l Limits, rcpts int) Verdict {
	if l == (Limits{}) {
		return Verdict{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	c := b.keys[key]
	if c == nil {
		c = &counter{}
	}
	return b.tell(key, c, c.check(l, 1, rcpts, slotOf(now)), now)
}

// Take counts one message to so many recipients, or says that it is over the
// limits and counts nothing.
func (b *Book) Take(key string, l Limits, rcpts int) (Receipt, Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	at := slotOf(now)
	key, c := b.counter(key)
	if v := c.check(l, 1, rcpts, at); v.Over {
		return Receipt{}, b.tell(key, c, v, now)
	}
	s := c.add(at, 1, rcpts)
	b.write(entry{kind: kindCount, key: key, at: s.at, msgs: s.msgs, rcpts: s.rcpts})
	return Receipt{key, at, rcpts}, Verdict{}
}

// Return takes back what Take has counted, for a message that came to nothing.
func (b *Book) Return(r Receipt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.keys[r.key]
	if r.key == "" || c == nil || r.at < slotOf(b.now())-hourSlots {
		return
	}
	s := c.add(r.at, -1, -r.rcpts)
	b.write(entry{kind: kindCount, key: r.key, at: s.at, msgs: s.msgs, rcpts: s.rcpts})
}

// tell marks a refusal as the first, at most once for the time of the limit.
func (b *Book) tell(key string, c *counter, v Verdict, now time.Time) Verdict {
	if !v.Over || now.Unix() < c.told || b.keys[key] != c {
		return v
	}
	v.First = true
	c.told = now.Add(map[string]time.Duration{"hour": time.Hour, "day": 24 * time.Hour}[v.Per]).Unix()
	b.write(entry{kind: kindTold, key: key, at: c.told})
	return v
}

// Reset forgets what key has handed in.
func (b *Book) Reset(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.keys[key]; c != nil {
		*c = counter{}
		b.write(entry{kind: kindReset, key: key})
	}
}

// Usage returns what key has handed in, and whether it may hand in one more
// message to one recipient.
func (b *Book) Usage(key string, l Limits) (Usage, Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, at := b.keys[key], slotOf(b.now())
	if c == nil {
		c = &counter{}
	}
	return c.usage(at), c.check(l, 1, 1, at)
}

// Keys returns the keys that have handed in anything within a day, in order.
func (b *Book) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slotOf(b.now())
	var keys []string
	for k, c := range b.keys {
		if c.usage(at) != (Usage{}) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// Run keeps the file synced and short until ctx ends. It returns nil then.
func (b *Book) Run(ctx context.Context) error {
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	pruned := b.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := b.sync(); err != nil {
			b.complain(err)
		}
		b.mu.Lock()
		now := b.now()
		if now.Sub(pruned) >= pruneEvery || now.Before(pruned) {
			pruned = now
			b.prune()
		}
		if b.size > compactAt && b.size > 2*b.least || b.failed {
			if err := b.compact(); err != nil {
				b.complain(err)
			} else {
				b.failed = false
			}
		}
		b.mu.Unlock()
	}
}

// sync waits for the disk without holding up those who count.
func (b *Book) sync() error {
	b.mu.Lock()
	f, dirty := b.f, b.dirty
	b.dirty = false
	b.mu.Unlock()
	if !dirty {
		return nil
	}
	return f.Sync()
}

// Close syncs and closes the file.
func (b *Book) Close() error {
	err := b.sync()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(err, b.f.Close())
}

// prune drops what no longer counts. The caller holds the lock.
func (b *Book) prune() {
	now := b.now()
	for key, c := range b.keys {
		if c.prune(slotOf(now)); len(c.slots) == 0 && c.told < now.Unix() {
			delete(b.keys, key)
		}
	}
}

// write appends one line. Where that fails the counts go on in memory, and the
// file is written anew as soon as that works. The caller holds the lock.
func (b *Book) write(e entry) {
	if b.failed {
		return
	}
	n, err := b.f.Write(e.line(nil))
	b.size += int64(n)
	b.dirty = true
	if err != nil {
		b.complain(err)
		b.failed = true
	}
}

func (b *Book) complain(err error) {
	b.log.Error("quotas are kept in memory only: a restart would forget them", "path", b.path, "error", err)
}

// compact writes the file anew with what counts. The caller holds the lock.
func (b *Book) compact() error {
	b.prune()
	var buf []byte
	for key, c := range b.keys {
		for _, s := range c.slots {
			buf = entry{kind: kindCount, key: key, at: s.at, msgs: s.msgs, rcpts: s.rcpts}.line(buf)
		}
		if c.told > 0 {
			buf = entry{kind: kindTold, key: key, at: c.told}.line(buf)
		}
	}
	f, err := os.OpenFile(b.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write quotas: %w", err)
	}
	if _, err = f.Write(buf); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(b.path+".new", b.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write quotas: %w", err), f.Close())
	}
	old := b.f
	b.f, b.size, b.least, b.dirty = f, int64(len(buf)), int64(len(buf)), false
	return errors.Join(syncDir(filepath.Dir(b.path)), old.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
