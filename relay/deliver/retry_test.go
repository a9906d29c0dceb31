package deliver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTooManyRecipientsForOneTransaction(t *testing.T) {
	s := newSink(t, func(s *sink) {
		s.answer = func(k *talk, line string) string {
			if strings.HasPrefix(line, "RCPT") && len(k.mail.rcpts) >= 30 {
				return "452 4.5.3 too many recipients"
			}
			return ""
		}
	})
	// The item's own back-off is longer than the test: all must go in one attempt.
	r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}, Item: Backoff{time.Hour, time.Hour}}, nil)
	var rcpts []string
	for i := range 250 {
		rcpts = append(rcpts, fmt.Sprintf("u%d@example.org", i))
	}
	r.add("alice@example.net", text, rcpts...)
	r.empty()
	seen := map[string]int{}
	for _, m := range s.mails() {
		for _, rc := range m.rcpts {
			seen[rc]++
		}
	}
	for rc, n := range seen {
		if n != 1 {
			t.Errorf("%s: %d times", rc, n)
		}
	}
	if len(seen) != 250 {
		t.Errorf("%d recipients", len(seen))
	}
}

func TestConnectionLost(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func() func(*talk, string) string
		copies int // that the sink took
		defers bool
	}{
		"at MAIL on a reused one": {func() func(*talk, string) string {
			return func(k *talk, line string) string {
				if strings.HasPrefix(line, "MAIL") && k.mails > 0 {
					return "close"
				}
				return ""
			}
		}, 2, false},
		"421 at MAIL on a reused one": {func() func(*talk, string) string {
			return func(k *talk, line string) string {
				if strings.HasPrefix(line, "MAIL") && k.mails > 0 {
					return "421 4.4.2 idle too long"
				}
				return ""
			}
		}, 2, false},
		"before the last dot": {func() func(*talk, string) string { return once("DATA", "close") }, 2, true},
		"before it took it":   {func() func(*talk, string) string { return once(".", "close") }, 2, true},
		// It had it, and we cannot know: once more is right, never is not.
		"after it took it": {func() func(*talk, string) string { return once(".", "close after accepting") }, 3, true},
		"451 at the end":   {func() func(*talk, string) string { return once(".", "451 4.3.0 disk") }, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, func(s *sink) { s.answer = tc.answer() })
			r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}, MaxConns: 1}, nil)
			r.add("alice@example.net", text, "b@example.org")
			r.empty()
			r.add("alice@example.net", text, "b@example.org")
			r.empty()
			if n := len(s.mails()); n != tc.copies {
				t.Errorf("%d copies", n)
			}
			if n := len(r.outcomes(Deferred)); (n > 0) != tc.defers {
				t.Errorf("%d deferrals", n)
			}
		})
	}
}

func once(verb, reply string) func(*talk, string) string {
	var o sync.Once
	return func(_ *talk, line string) (rep string) {
		if strings.HasPrefix(line, verb) {
			o.Do(func() { rep = reply })
		}
		return rep
	}
}

// deadDialer refuses some addresses and counts.
type deadDialer struct {
	mu    sync.Mutex
	dead  map[string]bool
	dials map[string]int
}

func (d *deadDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	dead := d.dead[address]
	d.dials[address]++
	d.mu.Unlock()
	if dead {
		return nil, errRefused
	}
	var nd net.Dialer
	return nd.DialContext(ctx, network, address)
}

func TestFailOverAndBack(t *testing.T) {
	a, b := newSink(t, nil), newSink(t, nil)
	hops := SmartHosts{a.hop(Required), b.hop(Required)}
	d := &deadDialer{dead: map[string]bool{hops[0].Address(): true}, dials: map[string]int{}}
	r := newRig(t, Settings{Router: hops}, func(e *Engine) { e.opt.Dialer = d })
	r.add("alice@example.net", text, "b@example.org")
	r.empty()
	if len(a.mails()) != 0 || len(b.mails()) != 1 {
		t.Fatalf("%d and %d", len(a.mails()), len(b.mails()))
	}
	d.mu.Lock()
	d.dead = nil
	d.mu.Unlock()
	eventually(t, "mail by the first again", func() bool {
		r.add("alice@example.net", text, "b@example.org")
		r.empty()
		return len(a.mails()) > 0
	})
}

// A dead next hop is dialled now and then, not once for each item; all arrives
// when it is back, or at once when an operator says so.
func TestDeadHopIsNotHammered(t *testing.T) {
	s := newSink(t, nil)
	h := s.hop(Required)
	d := &deadDialer{dead: map[string]bool{h.Address(): true}, dials: map[string]int{}}
	set := Settings{Router: SmartHosts{h}, Hop: Backoff{time.Hour, time.Hour}, MaxConns: 3}
	r := newRig(t, set, func(e *Engine) { e.opt.Dialer = d })
	var ids []string
	for range 300 {
		ids = append(ids, r.add("alice@example.net", text, "b@example.org"))
	}
	eventually(t, "all put off", func() bool {
		n := 0
		for _, it := range r.q.List() {
			if it.LastErr != "" && it.Next.After(time.Now().Add(time.Minute)) {
				n++
			}
		}
		return n == len(ids)
	})
	d.mu.Lock()
	dials := d.dials[h.Address()]
	d.dead = nil
	d.mu.Unlock()
	if dials > r.e.opt.Workers {
		t.Errorf("%d dials for %d items", dials, len(ids))
	}
	eventually(t, "delivery on request", func() bool {
		for _, id := range ids {
			_ = r.q.Retry(id) // gone already: fine
		}
		return r.q.Stats().Items == 0
	})
	if n := len(s.mails()); n != len(ids) {
		t.Errorf("%d arrived", n)
	}
}

func TestExpiryAndDelayNotice(t *testing.T) {
	s := newSink(t, func(s *sink) { s.answer = refuse("RCPT TO:<later", "451 4.2.2 mailbox full") })
	set := Settings{Router: SmartHosts{s.hop(Required)}, Expire: 2 * time.Second, Notice: time.Millisecond}
	r := newRig(t, set, nil)
	r.add("alice@example.net", text, "later@example.org")
	r.empty()
	var delayed, failed int
	for _, m := range s.mails() {
		if strings.Contains(m.data, "\r\nAction: delayed\r\nStatus: 4.2.2\r\n") {
			delayed++
		}
		if strings.Contains(m.data, "\r\nAction: failed\r\nStatus: 5.4.7\r\n") && strings.Contains(m.data, "mailbox full") {
			failed++
		}
	}
	if delayed != 1 || failed != 1 || len(s.mails()) != 2 {
		t.Errorf("%d delayed, %d failed: %+v", delayed, failed, s.mails())
	}
}

// When the engine is told to end, a message whose last dot is out is waited for.
func TestEndsAfterTheTransactionUnderWay(t *testing.T) {
	reached, goOn := make(chan struct{}), make(chan struct{})
	s := newSink(t, func(s *sink) {
		s.answer = func(_ *talk, line string) string {
			if line == "." {
				close(reached)
				<-goOn
			}
			return ""
		}
	})
	r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}}, nil)
	r.add("alice@example.net", text, "b@example.org")
	<-reached
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	select {
	case err := <-ended:
		t.Fatalf("ended in the middle: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := r.q.Stats().Items; n != 0 || len(s.mails()) != 1 {
		t.Errorf("%d items left, %d arrived", n, len(s.mails()))
	}
}

func TestSettingsChangeLive(t *testing.T) {
	s := newSink(t, nil)
	r := newRig(t, Settings{}, nil)
	r.add("alice@example.net", text, "b@example.org")
	eventually(t, "a deferral", func() bool { return len(r.outcomes(Deferred)) > 0 })
	if got := r.outcomes(Deferred)[0].Reply; !strings.Contains(got, "no next hop is set") {
		t.Errorf("got %q", got)
	}
	r.e.Configure(Settings{Router: SmartHosts{s.hop(Required)}})
	r.empty()
	if len(s.mails()) != 1 {
		t.Errorf("%d arrived", len(s.mails()))
	}
}
