package loader_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// What a source did within the second after its event is told with its next
// packet alone; until then it is among the tails, and nothing is missing.
func TestTailsAreWhatNoEventStandsForYet(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	var told atomic.Uint32
	go func() { _ = e.filter.Events(t.Context(), func(ev loader.Event) { told.Add(ev.Count) }) }()
	var knocks sync.WaitGroup
	for range 16 { // more than there are CPUs, each of which tells of its first
		knocks.Go(func() {
			if c, err := e.peer.Dial("192.0.2.3", e.to()+":25", 100*time.Millisecond); err == nil {
				c.Close()
				t.Error("a stranger got in")
			}
		})
	}
	knocks.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		tails, err := e.filter.Tails()
		if err != nil {
			t.Fatal(err)
		}
		counters, err := e.filter.Counters()
		if err != nil {
			t.Fatal(err)
		}
		var waiting uint32
		for _, tail := range tails {
			if tail.Source.String() != "192.0.2.3" || tail.Port != 25 || tail.Reason != loader.NoEntry || tail.Observed {
				t.Fatalf("tail %+v", tail)
			}
			waiting += tail.Count
		}
		if len(counters) == 1 && waiting > 0 && uint64(told.Load()+waiting) == counters[0].Packets {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("told %d, tails %+v, counters %+v", told.Load(), tails, counters)
		}
	}
}
