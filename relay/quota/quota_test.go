package quota

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) set(t time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.t = t }

func (c *clock) move(d time.Duration) { c.set(c.now().Add(d)) }

func open(t *testing.T, path string, c *clock) *Book {
	t.Helper()
	b, err := Open(path, c.now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func begin(t *testing.T) (*Book, *clock, string) {
	t.Helper()
	c := &clock{t: time.Date(2026, 11, 24, 12, 3, 0, 0, time.UTC)}
	path := filepath.Join(t.TempDir(), "quota.log")
	return open(t, path, c), c, path
}

func TestHourAndDay(t *testing.T) {
	b, c, _ := begin(t)
	l := Limits{MessagesPerHour: 3, RecipientsPerDay: 10}
	for i := range 3 {
		if _, v := b.Take("a", l, 2); v.Over {
			t.Fatalf("message %d: %+v", i, v)
		}
	}
	_, v := b.Take("a", l, 1)
	if want := time.Date(2026, 11, 24, 13, 5, 0, 0, time.UTC); !v.Over || v.String() != "3 messages an hour" || !v.Until.Equal(want) || !v.First {
		t.Errorf("the fourth: %+v, want until %v", v, want)
	}
	if _, v := b.Take("a", l, 1); !v.Over || v.First {
		t.Errorf("the fifth: %+v", v)
	}
	if _, v := b.Take("b", l, 1); v.Over {
		t.Errorf("another key: %+v", v)
	}
	c.set(v.Until.Add(-time.Second))
	if _, v := b.Take("a", l, 1); !v.Over {
		t.Error("a second early there is room")
	}
	c.set(v.Until)
	if v := b.Look("a", l, 5); !v.Over || v.String() != "10 recipients a day" || v.First {
		t.Errorf("recipients: %+v", v)
	}
	if _, v := b.Take("a", l, 4); v.Over {
		t.Errorf("what is left: %+v", v)
	}
	if u, _ := b.Usage("a", l); u != (Usage{1, 4, 4, 10}) {
		t.Errorf("usage %+v", u)
	}
	b.Reset("a")
	if u, v := b.Usage("a", l); u != (Usage{}) || v.Over {
		t.Errorf("after a reset: %+v, %+v", u, v)
	}
}

func TestReturn(t *testing.T) {
	b, c, path := begin(t)
	l := Limits{MessagesPerHour: 1}
	r, _ := b.Take("a", l, 3)
	b.Return(r)
	b.Return(Receipt{})
	if _, v := b.Take("a", l, 1); v.Over {
		t.Errorf("after Return: %+v", v)
	}
	if u, _ := open(t, path, c).Usage("a", l); u != (Usage{1, 1, 1, 1}) {
		t.Errorf("on the disk: %+v", u)
	}
}

// TestNeverMoreThanTheLimit plays days of random traffic: no window holds more
// than the limit, and at Until there is room.
func TestNeverMoreThanTheLimit(t *testing.T) {
	b, c, _ := begin(t)
	l := Limits{MessagesPerHour: 20, MessagesPerDay: 100}
	rng := rand.New(rand.NewPCG(1, 2))
	var passed []time.Time
	over := 0
	for range 4000 {
		c.move(time.Duration(rng.ExpFloat64() * float64(90*time.Second)))
		if rng.IntN(50) == 0 {
			b.mu.Lock()
			b.prune()
			b.mu.Unlock()
		}
		_, v := b.Take("a", l, 1)
		if !v.Over {
			passed = append(passed, c.now())
			continue
		}
		over++
		if rng.IntN(10) == 0 {
			c.set(v.Until)
			if _, v := b.Take("a", l, 1); v.Over {
				t.Fatalf("no room at %v: %+v", c.now(), v)
			}
			passed = append(passed, c.now())
		}
	}
	if over < 100 || len(passed) < 300 {
		t.Fatalf("%d passed, %d did not: this shows nothing", len(passed), over)
	}
	for i := range passed {
		for _, w := range []struct {
			limit int
			d     time.Duration
		}{{20, time.Hour}, {100, 24 * time.Hour}} {
			if j := i + w.limit; j < len(passed) && passed[j].Sub(passed[i]) < w.d {
				t.Fatalf("%d messages in %v from %v", w.limit+1, passed[j].Sub(passed[i]), passed[i])
			}
		}
	}
}

// TestOutlivesTheProcess: nothing is closed, as if killed.
func TestOutlivesTheProcess(t *testing.T) {
	b, c, path := begin(t)
	l := Limits{MessagesPerHour: 5}
	for range 4 {
		b.Take("a", l, 2)
	}
	b.Take("b c\n", l, 1)
	b.Reset("b c\n")
	b2 := open(t, path, c)
	if u, _ := b2.Usage("a", l); u != (Usage{4, 4, 8, 8}) {
		t.Errorf("usage %+v", u)
	}
	if k := b2.Keys(); len(k) != 1 || k[0] != "a" {
		t.Errorf("keys %q", k)
	}
	if _, v := b2.Take("a", l, 1); v.Over {
		t.Errorf("the fifth: %+v", v)
	}
	if _, v := b2.Take("a", l, 1); !v.First {
		t.Errorf("the sixth: %+v", v)
	}
	if _, v := open(t, path, c).Take("a", l, 1); !v.Over || v.First {
		t.Errorf("after a restart: %+v", v)
	}
}

// TestDamage: every prefix of a file, and random bytes in it, cost no more
// than the lines that they hit.
func TestDamage(t *testing.T) {
	b, c, path := begin(t)
	for i := range 5 {
		b.Take(fmt.Sprint("user ", i%3), Limits{}, 1)
		c.move(time.Minute)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(path, c.now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
		got := 0
		for _, k := range b.Keys() {
			u, _ := b.Usage(k, Limits{})
			got += u.MessagesDay
		}
		if want := bytes.Count(whole[:n], []byte("\n")); got != want {
			t.Fatalf("the first %d bytes hold %d messages, want %d", n, got, want)
		}
		b.Close()
	}
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 0x10
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if k := open(t, path, c).Keys(); len(k) < 2 {
		t.Errorf("one bad byte leaves %q", k)
	}
}

func TestIsBounded(t *testing.T) {
	b, c, path := begin(t)
	for i := range maxKeys + 50 {
		b.keys[fmt.Sprint(i)] = &counter{slots: []slot{{at: slotOf(c.now()), msgs: 1}}}
	}
	for i := range 50 {
		b.Take(fmt.Sprint("late ", i), Limits{MessagesPerHour: 40}, 1)
	}
	if u, v := b.Usage(others, Limits{MessagesPerHour: 40}); u.MessagesHour != 40 || !v.Over {
		t.Errorf("the late ones have used %+v", u)
	}
	if b.Take(strings.Repeat("x", maxKey+1), Limits{}, 1); len(b.keys) != maxKeys+51 {
		t.Errorf("%d keys", len(b.keys))
	}
	// A day of one key takes few slots, and the next day none.
	b = open(t, path+"2", c)
	for range 24 * 60 {
		b.Take("a", Limits{}, 1)
		c.move(time.Minute)
		b.prune()
	}
	if n := len(b.keys["a"].slots); n > 60 {
		t.Errorf("%d slots", n)
	}
	if u, _ := b.Usage("a", Limits{}); u.MessagesDay != 24*60 {
		t.Errorf("usage %+v", u)
	}
	c.move(26 * time.Hour)
	if b.prune(); len(b.keys) != 0 {
		t.Errorf("%d keys are left", len(b.keys))
	}
}

// TestFileIsKeptShort, and no count is lost over it.
func TestFileIsKeptShort(t *testing.T) {
	b, c, path := begin(t)
	b.size = compactAt + 1 // as if it were
	b.Take("a", Limits{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b.Take("a", Limits{}, 1)
		b.mu.Lock()
		short := b.size < compactAt
		b.mu.Unlock()
		if short {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the file is not written anew")
		}
	}
	b.Take("a", Limits{}, 1)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	u, _ := b.Usage("a", Limits{})
	if got, _ := open(t, path, c).Usage("a", Limits{}); got != u || u.MessagesDay < 3 {
		t.Errorf("the file says %+v, want %+v", got, u)
	}
}

// TestDiskFails: it counts on, and what it knows is written once that works.
func TestDiskFails(t *testing.T) {
	b, c, path := begin(t)
	b.f.Close()
	l := Limits{MessagesPerHour: 2}
	b.Take("a", l, 1)
	b.Take("a", l, 1)
	if _, v := b.Take("a", l, 1); !v.Over {
		t.Error("without its file it does not count")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.Run(ctx); close(done) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		failed := b.failed
		b.mu.Unlock()
		if !failed {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it stays without a file")
		}
	}
	cancel()
	<-done
	if u, _ := open(t, path, c).Usage("a", l); u.MessagesHour != 2 {
		t.Errorf("the file says %+v", u)
	}
}

func TestClockJumps(t *testing.T) {
	b, c, _ := begin(t)
	l := Limits{MessagesPerHour: 1}
	c.move(1000 * time.Hour)
	b.Take("a", l, 1)
	b.Take("a", l, 1)
	c.move(-1000 * time.Hour)
	b.prune()
	if _, v := b.Take("a", l, 1); !v.Over || v.Until.Sub(c.now()) > 70*time.Minute {
		t.Errorf("after the clock was set back: %+v", v)
	}
}

func TestValidate(t *testing.T) {
	if err := (Limits{MessagesPerDay: 5}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Limits{RecipientsPerHour: -1}).Validate(); err == nil || !strings.Contains(err.Error(), "recipients_per_hour") {
		t.Errorf("-1: %v", err)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(entry{kind: kindCount, key: "user a", at: 5, msgs: 1, rcpts: 2}.line(nil))
	f.Add([]byte("00000000 c 1 1 1 \"x\"\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := parseLine(line)
		if !ok {
			return
		}
		if again, ok := parseLine(e.line(nil)); !ok || again != e {
			t.Errorf("%q reads as %+v, and that as %+v", line, e, again)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	book, err := Open(filepath.Join(b.TempDir(), "q"), time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		book.Take("user alice", Limits{MessagesPerDay: 1 << 30}, 1)
	}
}
