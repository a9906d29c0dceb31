package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faultyDisk is osDisk until it is told to fail.
type faultyDisk struct {
	osDisk
	mu    sync.Mutex
	fails map[string]error // by method
}

func (d *faultyDisk) set(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails == nil {
		d.fails = map[string]error{}
	}
	d.fails[method] = err
}

func (d *faultyDisk) fail(method string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fails[method]
}

func (d *faultyDisk) create(path string, size int64) (*os.File, error) {
	if err := d.fail("create"); err != nil {
		return nil, err
	}
	return d.osDisk.create(path, size)
}

func (d *faultyDisk) write(f *os.File, b []byte, off int64) error {
	if err := d.fail("write"); err != nil {
		return err
	}
	return d.osDisk.write(f, b, off)
}

func (d *faultyDisk) sync(f *os.File) error {
	if err := d.fail("sync"); err != nil {
		return err
	}
	return d.osDisk.sync(f)
}

func TestFailedSyncIsFinal(t *testing.T) {
	for _, method := range []string{"sync", "write"} {
		t.Run(method, func(t *testing.T) {
			d := &faultyDisk{}
			q := open(t, t.TempDir(), Options{disk: d})
			id := add(t, q, "accepted")
			next(t, q)
			d.set(method, unix.EIO)
			if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader("x")); !errors.Is(err, ErrBroken) {
				t.Fatalf("got %v", err)
			}
			d.set(method, nil) // as an fsync after a failed one would say
			if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader("x")); !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
			if _, err := q.Next(context.Background()); !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
			if err := q.Settle(id, Update{}); !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
			if err := q.Close(); !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
			q = open(t, q.dir, Options{})
			if got := body(t, q, id); got != "accepted" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// With no room for another segment messages are turned away in time, results
// of deliveries still have room, and what was accepted is there.
func TestFullDisk(t *testing.T) {
	d := &faultyDisk{}
	o := Options{disk: d, SegmentSize: 64 << 10, InlineMax: 4 << 10}
	q := open(t, t.TempDir(), o)
	eventually(t, "spares", func() bool { q.mu.Lock(); defer q.mu.Unlock(); return len(q.spares) == wantSpares })
	d.set("create", unix.ENOSPC)
	var ids []string
	for {
		id, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader(strings.Repeat("x", 1000)))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, id); len(ids) > 1000 {
			t.Fatal("never full")
		}
	}
	if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader(strings.Repeat("x", 5000))); !errors.Is(err, ErrFull) {
		t.Fatalf("large: got %v", err)
	}
	for range ids { // a first round of failures, then all but one delivered
		if err := q.Settle(next(t, q).ID, Update{Next: time.Now(), Err: "451 later"}); err != nil {
			t.Fatal(err)
		}
	}
	q = reopen(t, q, o)
	if n := len(q.List()); n != len(ids) {
		t.Fatalf("%d items of %d", n, len(ids))
	}
	for range ids[1:] {
		it := next(t, q)
		if it.Attempts != 1 || body(t, q, it.ID) != strings.Repeat("x", 1000) {
			t.Fatalf("got %+v", it)
		}
		if err := q.Settle(it.ID, Update{Results: []Result{{Status: Delivered}}}); err != nil {
			t.Fatal(err)
		}
	}
	d.set("create", nil)
	eventually(t, "an Add that is accepted again", func() bool {
		_, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader("x"))
		return err == nil
	})
	q = reopen(t, q, o)
	if n := len(q.List()); n != 2 {
		t.Fatalf("%d items", n)
	}
}

// With even the reserve used up results wait in memory until there is room.
func TestReserveUsedUp(t *testing.T) {
	d := &faultyDisk{}
	o := Options{disk: d, SegmentSize: 64 << 10, FlushDelay: time.Millisecond}
	q := open(t, t.TempDir(), o)
	id := add(t, q, "stays")
	eventually(t, "spares", func() bool { q.mu.Lock(); defer q.mu.Unlock(); return len(q.spares) == wantSpares })
	d.set("create", unix.ENOSPC)
	long := strings.Repeat("why ", 200)
	for i := 0; ; i++ {
		it := next(t, q)
		if err := q.Settle(it.ID, Update{Next: time.Now(), Err: fmt.Sprint(i, long)}); err != nil {
			t.Fatal(err)
		}
		q.mu.Lock()
		full, waiting := q.full && len(q.spares) == 0, len(q.pend)
		q.mu.Unlock()
		if full && waiting > 50 {
			break
		}
		if i > 2000 {
			t.Fatal("never full")
		}
	}
	if err := q.Hold(id); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	d.set("create", nil)
	want, err := q.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	q = reopen(t, q, o)
	if got, err := q.Get(id); err != nil || got.Attempts != want.Attempts || !got.Held {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// Old segments are freed and used again, what waits moves to packs, and
// nothing that was finished or overwritten comes back.
func TestRecyclingAndCompaction(t *testing.T) {
	o := Options{SegmentSize: 64 << 10, InlineMax: 4 << 10, FlushDelay: time.Millisecond, CacheBytes: -1}
	q := open(t, t.TempDir(), o)
	waiting := map[string]string{}
	text := func(i int) string { return fmt.Sprint("message ", i, strings.Repeat(" text", 300)) }
	for i := range 2000 {
		id := add(t, q, text(i))
		it := next(t, q)
		if it.ID != id {
			t.Fatalf("got %s, want %s", it.ID, id)
		}
		u := Update{Results: []Result{{Status: Delivered}}}
		if i%100 == 0 {
			u = Update{Next: time.Now().Add(time.Hour), Err: "451 greylisted"}
			waiting[id] = text(i)
		}
		if err := q.Settle(id, u); err != nil {
			t.Fatal(err)
		}
	}
	var used int
	eventually(t, "a short log", func() bool {
		files, err := os.ReadDir(q.logDir)
		used = len(files)
		return err == nil && used <= compactFrom+maxSpares+2
	})
	for range 3 {
		l := q.List()
		if len(l) != len(waiting) {
			t.Fatalf("%d items, want %d", len(l), len(waiting))
		}
		for _, it := range l {
			if it.Attempts != 1 || it.LastErr != "451 greylisted" || body(t, q, it.ID) != waiting[it.ID] {
				t.Fatalf("got %+v", it)
			}
		}
		q = reopen(t, q, o)
	}
	for id := range waiting {
		if err := q.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no pack left", func() bool {
		left, err := os.ReadDir(q.packDir)
		return err == nil && len(left) == 0
	})
	q = reopen(t, q, o)
	if l := q.List(); len(l) != 0 {
		t.Errorf("%d items rose again", len(l))
	}
}
