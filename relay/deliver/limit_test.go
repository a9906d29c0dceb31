package deliver

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synward/synward/relay/queue"
)

// byDomain routes each domain to a hop of its own.
type byDomain map[string][]Hop

func (r byDomain) Route(_ context.Context, domain string) ([]Hop, error) {
	if hops, ok := r[domain]; ok {
		return hops, nil
	}
	return nil, &RouteError{Code: 550, Enhanced: "5.1.2", Text: "no such domain"}
}

func TestSlowHopHoldsNobodyElseUp(t *testing.T) {
	open := make(chan struct{})
	slow := newSink(t, func(s *sink) {
		s.answer = func(_ *talk, line string) string {
			if line == "." {
				<-open
			}
			return ""
		}
	})
	fast, backup := newSink(t, nil), newSink(t, nil)
	r := newRig(t, Settings{MaxConns: 3, Router: byDomain{
		"slow.example": {slow.hop(Required), backup.hop(Required)}, "fast.example": {fast.hop(Required)}}}, nil)
	const many = maxWaiting + 300
	for range many {
		r.add("alice@example.net", text, "b@slow.example")
	}
	for range 20 {
		r.add("alice@example.net", text, "b@fast.example")
	}
	eventually(t, "the fast hop's mail", func() bool { return len(fast.mails()) == 20 })
	if n := len(slow.mails()); n != 0 {
		t.Errorf("%d messages through a hop that is held", n)
	}
	slow.mu.Lock()
	if slow.conns > 3 {
		t.Errorf("%d connections, 3 are allowed", slow.conns)
	}
	slow.mu.Unlock()
	close(open)
	r.empty()
	if n := len(slow.mails()); n != many {
		t.Errorf("%d of %d arrived", n, many)
	}
	if n := len(backup.mails()); n != 0 {
		t.Errorf("%d went to the backup of a hop that works", n)
	}
	if n := len(r.outcomes(Deferred)); n != 0 {
		t.Errorf("%d are called deferred that only waited their turn", n)
	}
}

// TestHopThatWasSlowGetsAllAtOnce: what was put off while a hop had its hands
// full leaves as soon as it has not.
func TestHopThatWasSlowGetsAllAtOnce(t *testing.T) {
	var slow atomic.Bool
	slow.Store(true)
	step := make(chan struct{})
	s := newSink(t, func(s *sink) {
		s.answer = func(_ *talk, line string) string {
			if line == "." && slow.Load() {
				<-step
			}
			return ""
		}
	})
	r := newRig(t, Settings{MaxConns: 2, Router: SmartHosts{s.hop(Required)}}, nil)
	const many = 3 * maxWaiting
	for range many {
		r.add("alice@example.net", text, "b@example.org")
	}
	for range 3 { // it takes its time over the first ones
		time.Sleep(300 * time.Millisecond)
		step <- struct{}{}
	}
	for range many {
		r.add("alice@example.net", text, "b@example.org")
	}
	eventually(t, "the last items to be put off", func() bool {
		all := r.q.List()
		return all[len(all)-1].Next.After(time.Now())
	})
	slow.Store(false)
	close(step)
	r.empty()
	if n := len(s.mails()); n != 2*many {
		t.Errorf("%d of %d arrived", n, 2*many)
	}
}

func TestNoWayToADomainIsFinal(t *testing.T) {
	s := newSink(t, nil)
	r := newRig(t, Settings{Router: byDomain{"example.net": {s.hop(Required)}}, Item: Backoff{time.Hour, time.Hour}}, nil)
	r.add("alice@example.net", text, "b@nowhere.example", "c@example.net")
	r.empty()
	got := s.mails()
	if len(got) != 2 {
		t.Fatalf("%d messages, want the one for c and a bounce", len(got))
	}
	b := r.outcomes(Bounced)
	if len(b) != 1 || b[0].Rcpt != "b@nowhere.example" || b[0].Reply != "550 5.1.2 no such domain" {
		t.Errorf("bounced: %+v", b)
	}
}

// TestSMTPUTF8WhereNeeded: it is asked for in the transactions that need it, and
// at a hop without it only those suffer whose mail cannot do without.
func TestSMTPUTF8WhereNeeded(t *testing.T) {
	modern := newSink(t, nil)
	old := newSink(t, func(s *sink) { s.ext = []string{"8BITMIME"} })
	r := newRig(t, Settings{Item: Backoff{time.Hour, time.Hour}, Router: byDomain{
		"modern.example": {modern.hop(Required)}, "old.example": {old.hop(Required)}, "example.net": {modern.hop(Required)}}}, nil)
	to := func(utf8 bool, from string, rcpts ...string) {
		e := queue.Envelope{From: from, UTF8: utf8}
		for _, a := range rcpts {
			e.Rcpts = append(e.Rcpts, queue.Recipient{Addr: a, Notify: []string{"NEVER"}})
		}
		r.addEnvelope(e, text)
	}
	to(false, "alice@example.net", "jörg@modern.example", "b@old.example") // each its own
	to(false, "alice@example.net", "c@modern.example")
	to(false, "alice@example.net", "jörg@old.example", "d@old.example") // one of two
	to(true, "alice@example.net", "e@old.example")                      // its header needs it
	to(false, "ä@example.net", "f@old.example")
	r.empty()
	for _, s := range []struct {
		*sink
		rcpts string
	}{{modern, "jörg@modern.example+ c@modern.example"}, {old, "b@old.example d@old.example"}} {
		var got []string
		for _, m := range s.mails() {
			rcpt := strings.Trim(strings.TrimPrefix(strings.Fields(m.rcpts[0])[1], "TO:"), "<>")
			if strings.Contains(m.from, "SMTPUTF8") {
				rcpt += "+"
			}
			got = append(got, rcpt)
		}
		slices.Sort(got)
		want := strings.Fields(s.rcpts)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("arrived: %q, want %q", got, want)
		}
	}
	for _, o := range r.outcomes(Bounced) {
		if !strings.HasPrefix(o.Reply, "553 5.6.7 ") || strings.HasPrefix(o.Rcpt, "d@") {
			t.Errorf("bounced: %+v", o)
		}
	}
	if n := len(r.outcomes(Bounced)); n != 3 {
		t.Errorf("%d bounced, of 3", n)
	}
}

// TestWaitsForSettings: what waited over a restart is not tried, put off or given
// up before there are settings to try it by.
func TestWaitsForSettings(t *testing.T) {
	s := newSink(t, nil)
	q, err := queue.Open(t.TempDir(), queue.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	id, err := q.Add(t.Context(), queue.Envelope{From: "a@example.net", Rcpts: []queue.Recipient{{Addr: "b@example.org"}}}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan Outcome, 10)
	e := New(Options{Queue: q, Observe: func(o Outcome) { seen <- o }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	time.Sleep(100 * time.Millisecond) // it would have been tried by now
	if it, err := q.Get(id); err != nil || it.Attempts > 0 || it.LastErr != "" {
		t.Errorf("tried without settings: %+v, %v", it, err)
	}
	e.Configure(Settings{Router: SmartHosts{s.hop(Required)}})
	if o := <-seen; o.Kind != Delivered {
		t.Errorf("the first outcome is %+v", o)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
