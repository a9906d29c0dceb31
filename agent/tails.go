package agent

import (
	"fmt"
	"sync"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/loader"
)

// tails tells of the last attempts of sources that have gone quiet: the kernel
// would with a next one, which may never come.
type tails struct {
	mu   sync.Mutex
	seen map[int]loader.Tail // at the last look; nil = there was none
	told map[int]loader.Tail // by an event of the agent's own
}

// look takes what the kernel has not told of yet, and returns what has stood
// there since the last look. What stands there at the first has been told by an
// earlier agent.
func (t *tails) look(now []loader.Tail) (quiet []loader.Tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.seen == nil
	seen, told := make(map[int]loader.Tail, len(now)), map[int]loader.Tail{}
	for _, tail := range now {
		seen[tail.Place] = tail
		switch {
		case first || t.told[tail.Place] == tail:
			told[tail.Place] = tail
		case t.seen[tail.Place] == tail:
			told[tail.Place] = tail
			quiet = append(quiet, tail)
		}
	}
	t.seen, t.told = seen, told
	return quiet
}

// correct takes out of a kernel's event what has been told already.
func (t *tails) correct(e *loader.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for place, tail := range t.told {
		same := tail.Source == e.Source && tail.Port == e.Port && tail.Reason == e.Reason && tail.Observed == e.Observed
		if same && tail.Count < e.Count {
			e.Count -= tail.Count
			delete(t.told, place)
			return
		}
	}
}

// tellTails notes the attempts of sources that have gone quiet.
func (a *Agent) tellTails() error {
	if a.kernel.tails == nil {
		return nil
	}
	now, err := a.kernel.tails()
	if err != nil {
		return fmt.Errorf("read the tails of events: %w", err)
	}
	for _, t := range a.tails.look(now) {
		a.note(control.Event{
			Time: a.now(), Source: t.Source, Port: t.Port, Reason: t.Reason.String(), Observed: t.Observed, Count: t.Count,
		})
	}
	return nil
}
