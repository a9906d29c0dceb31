package loader_test

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// patience is how long a dial waits that is expected to get no answer: longer
// than the first retransmission of a SYN.
const patience = 1300 * time.Millisecond

// edge is a host with the filter on its interface eth0, and one neighbour whose
// addresses end in .2 and .3. 192.0.2.2 and 2001:db8::2 are allowed, .3 is a stranger.
type edge struct {
	*lab.Host
	peer   *lab.Host
	filter *loader.Filter
	server string    // its address, where it is not the edge's own
	behind *lab.Host // the host that it runs on, where that is not the edge
}

// to is the address that clients connect to.
func (e *edge) to() string { return cmp.Or(e.server, "192.0.2.1") }

// toward is the address that this source connects to.
func (e *edge) toward(src string) string {
	if netip.MustParseAddr(src).Is6() {
		return "2001:db8::1"
	}
	return e.to()
}

func newEdge(t *testing.T, limits rule.Limits) *edge {
	t.Helper()
	e := bareEdge(t)
	e.sync(t, limits, "192.0.2.2/32", "2001:db8::2/128")
	e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
	return e
}

// bareEdge is an edge whose filter has no policy yet and is on no interface.
func bareEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{Host: lab.NewHost(t, "edge"), peer: lab.NewHost(t, "peer"), filter: open(t)}
	lab.Connect(e.Host, "eth0", e.peer, "eth0")
	e.Address("eth0", "192.0.2.1/24", "2001:db8::1/64")
	e.peer.Address("eth0", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "2001:db8::3/64")
	return e
}

// reopen is a new agent on the pins that the last one left.
func (e *edge) reopen(t *testing.T) {
	t.Helper()
	f, err := loader.Open(loader.Options{PinDir: e.filter.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e.filter = f
}

func (e *edge) sync(t *testing.T, limits rule.Limits, prefixes ...string) loader.Change {
	t.Helper()
	var entries []rule.Entry
	var rules []rule.Rule
	for i, p := range prefixes {
		id := uint64(100 + i)
		entries = append(entries, rule.Entry{ID: id, Verdict: rule.Pass, Limits: limits})
		rules = append(rules, rule.Rule{Prefix: netip.MustParsePrefix(p), Steps: []rule.Step{{Ports: [8]uint64{id, id, id}}}})
	}
	c, err := e.filter.Sync(rule.Policy{
		Ports:      []rule.Port{{Number: 25, Default: rule.Drop}, {Number: 465, Default: rule.Drop}, {Number: 587, Default: rule.Drop}},
		IPv6Prefix: 64, Entries: slices.Values(entries), Rules: slices.Values(rules),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reached says whether a connection came about; anything but silence and
// success fails the test.
func reached(t *testing.T, from *lab.Host, src, to string) bool {
	t.Helper()
	c, err := from.Dial(src, to, patience)
	if err == nil {
		c.Close()
		return true
	}
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("dial %s from %s: %v; want a connection or silence", to, src, err)
	}
	return false
}

func TestStrangerMeetsSilence(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	for _, port := range []int{25, 465, 587} {
		e.Listen(fmt.Sprintf("[::]:%d", port))
	}
	for _, to := range []string{"192.0.2.1:25", "192.0.2.1:465", "192.0.2.1:587"} {
		if !reached(t, e.peer, "192.0.2.2", to) {
			t.Errorf("%s: the allowed source was refused", to)
		}
	}
	if !reached(t, e.peer, "2001:db8::2", "[2001:db8::1]:25") {
		t.Error("the allowed IPv6 source was refused")
	}
	var wg sync.WaitGroup
	for src, to := range map[string]string{"192.0.2.3": "192.0.2.1:25", "2001:db8::3": "[2001:db8::1]:587"} {
		wg.Go(func() {
			if reached(t, e.peer, src, to) {
				t.Errorf("%s: the stranger %s came through", to, src)
			}
		})
	}
	wg.Wait()
}

func TestEverythingElseIsUntouched(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:22")
	e.Listen("[::]:80")
	e.peer.Listen("[::]:25")
	if !reached(t, e.peer, "192.0.2.3", "192.0.2.1:22") || !reached(t, e.peer, "2001:db8::3", "[2001:db8::1]:80") {
		t.Error("a stranger's connection to another port was refused")
	}
	if !reached(t, e.Host, "", "192.0.2.3:25") || !reached(t, e.Host, "", "[2001:db8::3]:25") {
		t.Error("the host's own outgoing SMTP was refused")
	}
	if !reached(t, e.Host, "", "127.0.0.1:22") {
		t.Error("loopback was refused")
	}
	e.Do(func() error { return exchangeUDP(e.peer) })
}

// exchangeUDP sends a datagram to port 25 of the edge and waits for its echo.
func exchangeUDP(peer *lab.Host) error {
	l, err := net.ListenPacket("udp", "192.0.2.1:25")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		buf := make([]byte, 64)
		if n, from, err := l.ReadFrom(buf); err == nil {
			_, _ = l.WriteTo(buf[:n], from)
		}
	}()
	return peer.Try(func() error {
		c, err := net.Dial("udp", "192.0.2.1:25")
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 64))
		return err
	})
}

// What the agent's death leaves behind goes on; who comes back finds it.
func TestEnforcesWithNobodyThere(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("192.0.2.1:25")
	if err := e.filter.Close(); err != nil {
		t.Fatal(err)
	}
	if reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
		t.Error("the stranger came through while nobody held the filter")
	}
	if !reached(t, e.peer, "192.0.2.2", "192.0.2.1:25") {
		t.Error("the allowed source was refused while nobody held the filter")
	}
	e.reopen(t)
	e.Do(func() error {
		at, err := e.filter.Attachments()
		if err == nil && (len(at) != 1 || at[0].Interface != "eth0" || at[0].Mode != loader.Native) {
			t.Errorf("attachments after re-opening: %+v", at)
		}
		return err
	})
	if c := e.sync(t, rule.Limits{}, "192.0.2.2/32", "2001:db8::2/128"); c != (loader.Change{}) {
		t.Errorf("the same policy after re-opening: %+v; want nothing to do", c)
	}
	if c := e.sync(t, rule.Limits{}, "2001:db8::2/128"); c.Removed != 1 {
		t.Errorf("removal: %+v", c)
	}
	if reached(t, e.peer, "192.0.2.2", "192.0.2.1:25") {
		t.Error("the source whose entry was removed came through")
	}
}

func TestCountersHitsAndEvents(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	events := make(chan loader.Event, 100)
	go func() { _ = e.filter.Events(t.Context(), func(ev loader.Event) { events <- ev }) }()
	reached(t, e.peer, "192.0.2.2", "192.0.2.1:25")
	reached(t, e.peer, "192.0.2.3", "192.0.2.1:25")
	select {
	case ev := <-events:
		if ev.Source.String() != "192.0.2.3" || ev.Port != 25 || ev.Reason != loader.NoEntry || ev.Observed ||
			ev.Count == 0 || time.Since(ev.Time).Abs() > time.Minute {
			t.Errorf("event %+v", ev)
		}
	case <-time.After(5 * time.Second):
		t.Error("no event for a stranger's SYN")
	}
	hits, err := e.filter.Hits()
	if err != nil || hits[100].Count != 1 || time.Since(hits[100].Last).Abs() > time.Minute || hits[101].Count != 0 {
		t.Errorf("hits %+v, %v", hits, err)
	}
	probe(t, e) // must not count
	counters, err := e.filter.Counters()
	if err != nil || len(counters) != 2 {
		t.Fatalf("counters %+v, %v", counters, err)
	}
	for _, c := range counters {
		if c.Port != 25 || c.Observed || c.Reason == loader.Allowed && c.Packets != 1 || c.Reason == loader.NoEntry && c.Packets < 2 {
			t.Errorf("counter %+v", c)
		}
	}
}

func probe(t *testing.T, e *edge) {
	t.Helper()
	for _, src := range []string{"192.0.2.2", "192.0.2.3"} {
		if _, err := e.filter.Probe(netip.MustParseAddr(src), 25); err != nil {
			t.Fatal(err)
		}
	}
}
