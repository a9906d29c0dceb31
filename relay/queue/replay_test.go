package queue

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A history is a log and, for each record in it, what was done.
type history struct {
	log   []byte
	nonce uint64
	steps []step
}

type step struct {
	end    int // of its record in the log
	header int // where its record begins
	apply  func(model)
	remove bool
}

// model is what the queue must hold: for each id, a summary of its state.
type model map[string]summary

type summary struct {
	body     string
	left     string
	attempts int
	held     bool
}

func (h history) model(apply func(i int) bool) model {
	m := model{}
	for i, s := range h.steps {
		if apply(i) {
			s.apply(m)
		}
	}
	return m
}

// change alters the state of an item that is there.
func (m model) change(id string, f func(*summary)) {
	if s, ok := m[id]; ok {
		f(&s)
		m[id] = s
	}
}

// record makes a history with every kind of record on a real queue.
func record(t *testing.T) history {
	t.Helper()
	q := open(t, t.TempDir(), Options{FlushDelay: time.Millisecond, SegmentSize: 64 << 10})
	var h history
	step1 := func(remove bool, do func() func(model)) {
		t.Helper()
		begin := int(q.active.off)
		f := do()
		drain(t, q)
		h.steps = append(h.steps, step{header: begin, end: int(q.active.off), apply: f, remove: remove})
	}
	adds := func(body string, rcpts ...string) (id string) {
		step1(false, func() func(model) {
			id = add(t, q, body, rcpts...)
			return func(m model) { m[id] = summary{body: body, left: fmt.Sprint(seq(len(rcpts)))} }
		})
		return id
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	settle := func(id string, last bool, left string, done ...int) {
		step1(last, func() func(model) {
			u := Update{Next: time.Now(), Err: "451"}
			for _, d := range done {
				u.Results = append(u.Results, Result{Rcpt: d, Status: Delivered})
			}
			must(q.Settle(id, u))
			return func(m model) {
				if last {
					delete(m, id)
					return
				}
				m.change(id, func(s *summary) { s.left = left; s.attempts++ })
			}
		})
	}
	a := adds("first", "a@x", "b@x", "c@x")
	b := adds("second", "a@x")
	settle(a, false, "[0 2]", 1)
	step1(false, func() func(model) {
		must(q.Hold(b))
		return func(m model) { m.change(b, func(s *summary) { s.held = true }) }
	})
	c := adds(strings.Repeat("third ", 30), "a@x", "b@x")
	settle(c, true, "", 0, 1)
	step1(false, func() func(model) {
		must(q.Release(b))
		return func(m model) { m.change(b, func(s *summary) { s.held = false }) }
	})
	d := adds("", "a@x")
	step1(true, func() func(model) {
		must(q.Delete(d))
		return func(m model) { delete(m, d) }
	})
	settle(a, true, "", 0, 2)
	adds("last", "a@x")
	log, err := os.ReadFile(q.active.path)
	if err != nil {
		t.Fatal(err)
	}
	h.log, h.nonce = log[:q.active.off], q.active.nonce
	return h
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// replayed is what a replay of the content gives.
func replayed(t *testing.T, content []byte, nonce uint64) (model, *replay) {
	t.Helper()
	r := newReplay(slog.New(slog.DiscardHandler))
	if err := r.segment(&segment{nonce: nonce}, content); err != nil {
		t.Fatal(err)
	}
	m := model{}
	for _, e := range r.entries() {
		it := e.item()
		m[it.ID] = summary{
			body: string(content[int(e.off)+e.start:][:e.size]), left: fmt.Sprint(it.Pending()),
			attempts: it.Attempts, held: it.Held,
		}
	}
	return m, r
}

func same(a, b model) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// stale is the same log as an earlier use of the segment would have left it.
func (h history) stale(shift int) []byte {
	old := make([]byte, 0, len(h.log))
	for i := len(h.steps) - 1; i >= 0; i-- { // other order, so that the boundaries differ
		rec := slices.Clone(h.log[h.steps[i].header:h.steps[i].end])
		stamp(rec, h.nonce+1)
		old = append(old, rec...)
	}
	return old[shift:]
}

func TestEveryPrefixReplaysToWhatWasWritten(t *testing.T) {
	h := record(t)
	stale := h.stale(0)
	content := make([]byte, 2*len(h.log))
	for cut := 0; cut <= len(h.log); cut++ {
		want := h.model(func(i int) bool { return h.steps[i].end <= cut })
		for name, tail := range map[string][]byte{"cut off": nil, "zeroes": make([]byte, 300), "an earlier use": stale[min(cut, len(stale)):]} {
			got := append(append(content[:0], h.log[:cut]...), tail...)
			m, r := replayed(t, got, h.nonce)
			// A record's zero padding, or a checksummed remove without all of
			// its words, may be whole already; and so may one whose missing
			// bytes the tail happens to have.
			cut := cut
			for cut < min(len(got), len(h.log)) && got[cut] == h.log[cut] {
				cut++
			}
			full := h.model(func(i int) bool {
				s := h.steps[i]
				return s.end-recordStep < cut || s.remove && s.header+33 <= cut // the rest of a header is zeroes
			})
			if !same(m, want) && !same(m, full) {
				t.Fatalf("cut at %d of %d, then %s:\n got %v\nwant %v", cut, len(h.log), name, m, want)
			}
			if len(r.gaps) > 0 {
				t.Fatalf("cut at %d, then %s: %d gaps", cut, name, len(r.gaps))
			}
		}
	}
}

func TestAnyBitFlipCostsAtMostOneRecord(t *testing.T) {
	h := record(t)
	full := h.model(func(int) bool { return true })
	for at := range h.log {
		bit := byte(1) << rand.IntN(8)
		h.log[at] ^= bit
		hit := slices.IndexFunc(h.steps, func(s step) bool { return at < s.end })
		m, r := replayed(t, h.log, h.nonce)
		without := h.model(func(i int) bool { return i != hit })
		switch {
		case same(m, full): // padding, a word of a remove, or a state that a later one replaced
		case h.steps[hit].remove && at >= h.steps[hit].header+headerSize:
			t.Fatalf("flip of %#x at %d: a removed item rose again: %v", bit, at, m)
		case !same(m, without):
			t.Fatalf("flip of %#x at %d in record %d:\n got %v\nwant %v", bit, at, hit, m, without)
		case at < h.steps[hit].header+headerSize && hit < len(h.steps)-1 && len(r.gaps) != 1:
			t.Fatalf("flip of %#x at %d in a header: %d gaps", bit, at, len(r.gaps))
		}
		h.log[at] ^= bit
	}
}

// A message whose body holds records must not have them replayed when its own
// header is damaged: whoever wrote it cannot know the nonce.
func TestForgedRecordInABody(t *testing.T) {
	h := record(t)
	rec := slices.Clone(h.log[h.steps[0].header:h.steps[0].end])
	stamp(rec, 1234) // a guess
	m := meta{Envelope: envelope("v@x")}
	buf, err := startMessage(m, 0)
	if err != nil {
		t.Fatal(err)
	}
	for len(buf)%recordStep != 0 {
		buf = append(buf, ' ')
	}
	outer := seal(append(buf, rec...), 99, kindMessage)
	stamp(outer, h.nonce)
	outer[9] ^= 1
	if m, _ := replayed(t, outer, h.nonce); len(m) != 0 {
		t.Errorf("got %v", m)
	}
}

func TestNewerKindIsRefused(t *testing.T) {
	rec := seal(make([]byte, headerSize), 7, 9)
	stamp(rec, 5)
	r := newReplay(slog.New(slog.DiscardHandler))
	if err := r.segment(&segment{nonce: 5, path: "x.seg"}, rec); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
}

func FuzzReplay(f *testing.F) {
	buf, err := startMessage(meta{Envelope: envelope("v@x")}, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seal(buf, 1, kindMessage)[headerSize:], byte(1))
	f.Add([]byte(`{"n":1,"done":[{"rcpt":9}]}`), byte(2))
	f.Fuzz(func(t *testing.T, payload []byte, k byte) {
		first := seal(append(make([]byte, headerSize), buf[headerSize:]...), 1, kindMessage)
		rec := seal(append(make([]byte, headerSize), payload...), 1, kind(k%3+1))
		var log []byte
		for _, b := range [][]byte{first, rec} {
			stamp(b, 7)
			log = append(log, b...)
		}
		r := newReplay(slog.New(slog.DiscardHandler))
		if err := r.segment(&segment{nonce: 7}, append(log, payload...)); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.entries() {
			e.item().Pending()
			if e.pack == nil && e.place.Pack == 0 && e.off+int64(e.start)+e.size > int64(len(log)) {
				t.Fatalf("body outside of the log: %+v", e)
			}
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("0000000000001")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := parseID(s); err == nil && formatID(id) != s {
			t.Fatalf("%q reads as %d, which is %q", s, id, formatID(id))
		}
	})
}
