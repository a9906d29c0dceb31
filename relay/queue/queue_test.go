package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func open(t testing.TB, dir string, o Options) *Queue {
	t.Helper()
	if o.SegmentSize == 0 {
		o.SegmentSize = 256 << 10
	}
	q, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func envelope(rcpts ...string) Envelope {
	e := Envelope{From: "alice@example.net", User: "alice", Source: netip.MustParseAddr("192.0.2.7"), Session: "s1"}
	for _, r := range rcpts {
		e.Rcpts = append(e.Rcpts, Recipient{Addr: r, Notify: []string{"FAILURE"}})
	}
	return e
}

func add(t testing.TB, q *Queue, body string, rcpts ...string) string {
	t.Helper()
	if rcpts == nil {
		rcpts = []string{"bob@example.org"}
	}
	id, err := q.Add(context.Background(), envelope(rcpts...), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func next(t testing.TB, q *Queue) Item {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	it, err := q.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func body(t testing.TB, q *Queue, id string) string {
	t.Helper()
	r, err := q.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits for what a background task of the queue brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for: " + what)
		}
	}
}

// drain waits until everything is on the disk.
func drain(t testing.TB, q *Queue) {
	t.Helper()
	eventually(t, "an empty commit queue", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.pend) == 0 && !q.leading
	})
}

func reopen(t testing.TB, q *Queue, o Options) *Queue {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, q.dir, o)
}

func TestItemSurvivesRestart(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	id := add(t, q, "Subject: x\r\n\r\nhello\r\n", "bob@example.org", `"a b"@example.org`)
	before, err := q.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if before.Size != 21 || !before.Next.Equal(before.Received) || before.Source != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("got %+v", before)
	}
	q = reopen(t, q, Options{})
	after, err := q.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if got := body(t, q, id); got != "Subject: x\r\n\r\nhello\r\n" {
		t.Errorf("body %q", got)
	}
}

func TestSettleEndsRecipientsOneByOne(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	id := add(t, q, "x", "a@example.org", "b@example.org")
	it := next(t, q)
	due := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	if err := q.Settle(it.ID, Update{Results: []Result{{Rcpt: 0, Status: Delivered}}, Next: due, Err: "451 later", Warned: true}); err != nil {
		t.Fatal(err)
	}
	q = reopen(t, q, Options{})
	it, err := q.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1}, it.Pending()); d != "" {
		t.Error(d)
	}
	if it.Attempts != 1 || !it.Next.Equal(due) || it.LastErr != "451 later" || !it.Warned {
		t.Errorf("got %+v", it)
	}
	if s := q.Stats(); s.Items != 1 || s.Deferred != 1 || s.Bytes != 1 || !s.Oldest.Equal(it.Received) {
		t.Errorf("got %+v", s)
	}
	if err := q.Retry(id); err != nil {
		t.Fatal(err)
	}
	if it = next(t, q); it.ID != id || !it.Forced {
		t.Errorf("got %+v", it)
	}
	if err := q.Settle(id, Update{Results: []Result{{Rcpt: 1, Status: Failed}}}); err != nil {
		t.Fatal(err)
	}
	q = reopen(t, q, Options{})
	if s := q.Stats(); s != (Stats{}) {
		t.Errorf("got %+v", s)
	}
	if _, err := q.Get(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestHoldReleaseDelete(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	id, other := add(t, q, "x"), add(t, q, "y")
	if err := q.Hold(id); err != nil {
		t.Fatal(err)
	}
	q = reopen(t, q, Options{})
	if it := next(t, q); it.ID != other {
		t.Fatalf("held item handed out: %+v", it)
	}
	if err := q.Retry(id); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if it, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v", it, err)
	}
	if err := q.Release(id); err != nil {
		t.Fatal(err)
	}
	if it := next(t, q); it.ID != id {
		t.Fatalf("got %+v", it)
	}
	if err := q.Delete(id); err != nil {
		t.Fatal(err)
	}
	if err := q.Settle(id, Update{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := q.Delete("nonsense"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	q = reopen(t, q, Options{})
	if l := q.List(); len(l) != 1 || l[0].ID != other {
		t.Errorf("got %+v", l)
	}
}

// TestHeldFromTheBeginning: never handed out, held after a restart, and it goes
// once it is released.
func TestHeldFromTheBeginning(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, Options{})
	e := envelope("bob@example.org")
	e.Hold = true
	id, err := q.Add(context.Background(), e, strings.NewReader("text"))
	if err != nil {
		t.Fatal(err)
	}
	other := add(t, q, "other")
	if it := next(t, q); it.ID != other {
		t.Errorf("%s was handed out, want %s", it.ID, other)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, Options{})
	if s := q.Stats(); s.Held != 1 || s.Items != 2 {
		t.Errorf("after a restart: %+v", s)
	}
	if err := errors.Join(q.Delete(other), q.Release(id)); err != nil {
		t.Fatal(err)
	}
	if it := next(t, q); it.ID != id || it.Held || it.Hold || body(t, q, id) != "text" {
		t.Errorf("released is %+v", it)
	}
	if s := q.Stats(); s.Held != 0 {
		t.Errorf("after release: %+v", s)
	}
}

func TestPostponeWritesNothing(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	id := add(t, q, "x")
	drain(t, q)
	at := q.active.off
	next(t, q)
	if err := q.Postpone(id, time.Now().Add(10*time.Millisecond), "next hop is down"); err != nil {
		t.Fatal(err)
	}
	if it := next(t, q); it.ID != id || it.LastErr != "next hop is down" || it.Attempts != 0 {
		t.Errorf("got %+v", it)
	}
	drain(t, q)
	if q.active.off != at {
		t.Errorf("log grew from %d to %d", at, q.active.off)
	}
}

func TestLargeBodyHasItsOwnFile(t *testing.T) {
	q := open(t, t.TempDir(), Options{InlineMax: 1000})
	for _, size := range []int{999, 1000, 1001, 300 << 10, 1 << 20} {
		want := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
		id := add(t, q, want)
		for range 2 {
			if got := body(t, q, id); got != want {
				t.Errorf("size %d: body differs, %d octets", size, len(got))
			}
			if it, err := q.Get(id); err != nil || it.Size != int64(size) {
				t.Errorf("size %d: got %+v, %v", size, it, err)
			}
			q = reopen(t, q, Options{InlineMax: 1000})
		}
		if err := q.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no pack left", func() bool {
		left, err := os.ReadDir(q.packDir)
		return err == nil && len(left) == 0
	})
}

func TestAddRefuses(t *testing.T) {
	q := open(t, t.TempDir(), Options{InlineMax: 100, MaxItems: 2, MaxBytes: 5000})
	broken := iotest.ErrReader(errors.New("client went away"))
	for name, tc := range map[string]struct {
		e    Envelope
		body io.Reader
		want string
	}{
		"no recipients":     {envelope(), strings.NewReader("x"), "no recipients"},
		"line break":        {envelope("a@b\r\nRCPT TO:<c@d>"), strings.NewReader("x"), "control character"},
		"NUL":               {envelope("a\x00@b"), strings.NewReader("x"), "control character"},
		"invalid UTF-8":     {envelope("a\xff@b"), strings.NewReader("x"), "invalid UTF-8"},
		"cut, small":        {envelope("a@b"), io.MultiReader(strings.NewReader("x"), broken), "client went away"},
		"cut, large":        {envelope("a@b"), io.MultiReader(strings.NewReader(strings.Repeat("x", 200)), broken), "client went away"},
		"cut unexpectedly":  {envelope("a@b"), io.MultiReader(strings.NewReader(strings.Repeat("x", 200)), iotest.ErrReader(io.ErrUnexpectedEOF)), "unexpected EOF"},
		"over MaxBytes":     {envelope("a@b"), strings.NewReader(strings.Repeat("x", 5001)), "queue is full"},
		"far over MaxBytes": {envelope("a@b"), neverEnding{}, "queue is full"},
	} {
		if id, err := q.Add(context.Background(), tc.e, tc.body); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %q, %v", name, id, err)
		}
	}
	add(t, q, "x")
	add(t, q, "y")
	if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader("z")); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	q = reopen(t, q, Options{})
	if n := len(q.List()); n != 2 {
		t.Errorf("%d items", n)
	}
	eventually(t, "no pack left", func() bool {
		left, err := os.ReadDir(q.packDir)
		return err == nil && len(left) == 0
	})
}

type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) { return len(b), nil }

func TestSecondProcessIsRefused(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	if _, err := Open(q.dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := q.Next(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	open(t, q.dir, Options{})
}

func TestManyWriters(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	const writers, each = 20, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader(fmt.Sprint(w, " ", i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := map[string]bool{}
	for range writers * each {
		it := next(t, q)
		b := body(t, q, it.ID)
		if seen[b] {
			t.Errorf("%q handed out twice", b)
		}
		seen[b] = true
		if err := q.Settle(it.ID, Update{Results: []Result{{Status: Delivered}}}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	q = reopen(t, q, Options{})
	if l := q.List(); len(l) != 0 {
		t.Errorf("%d items rose again", len(l))
	}
}
