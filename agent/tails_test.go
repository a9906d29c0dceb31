package agent

import (
	"net/netip"
	"testing"

	"github.com/synward/synward/loader"
)

func TestAQuietSourcesLastAttemptsAreToldOnce(t *testing.T) {
	a, _ := newTestAgent(t)
	old := loader.Tail{Place: 1, Sent: 5, Source: netip.MustParseAddr("192.0.2.66"), Port: 25, Reason: loader.NoEntry, Count: 9}
	tail := loader.Tail{Place: 7, Sent: 10, Source: netip.MustParseAddr("198.51.100.9"), Port: 25, Reason: loader.NoEntry, Count: 4}
	kernel := []loader.Tail{old} // of before this agent
	a.kernel.tails = func() ([]loader.Tail, error) { return kernel, nil }
	counted := func() (sum uint64) {
		rows, err := a.journal.attempts.Since(a.now().Add(-1e9))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			sum += r.Count
		}
		return sum
	}
	look := func(want uint64) {
		t.Helper()
		if err := a.tellTails(); err != nil {
			t.Fatal(err)
		}
		if got := counted(); got != want {
			t.Errorf("%d attempts told, want %d", got, want)
		}
	}
	look(0)
	kernel = append(kernel, tail)
	look(0) // it may go on yet
	kernel[1].Count = 6
	look(0)
	look(6)
	look(6)
	e := loader.Event{Source: tail.Source, Port: 25, Reason: loader.NoEntry, Count: 7} // it comes again
	a.tails.correct(&e)
	if e.Count != 1 {
		t.Errorf("the event stands for %d attempts, want the one that is new", e.Count)
	}
	kernel[1].Sent, kernel[1].Count = 20, 2
	look(6)
	look(8)
	kernel = nil // somebody else has its place
	look(8)
	e.Count = 3
	if a.tails.correct(&e); e.Count != 3 {
		t.Errorf("what was forgotten is taken out: %d attempts left", e.Count)
	}
}
