package agent

import (
	"context"
	"net"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/loader"
)

// pumpEvents moves the kernel's events into ring and journal. Losing them must not end
// the agent: it tries again.
func (a *Agent) pumpEvents(ctx context.Context) error {
	for {
		// In a goroutine of its own: a read that does not notice the end must
		// not hold up that of the agent.
		ended := make(chan error, 1)
		go func() { ended <- a.readEvents(ctx) }()
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			a.problem("events", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (a *Agent) readEvents(ctx context.Context) error {
	names := map[int]string{}
	return a.kernel.events(ctx, func(e loader.Event) {
		a.tails.correct(&e)
		a.note(control.Event{
			Time: e.Time, Source: e.Source, Port: e.Port, Reason: e.Reason.String(), Observed: e.Observed,
			EntryID: e.EntryID, Interface: interfaceName(names, e.Ifindex),
			Count: e.Count, Suppressed: e.Suppressed,
		})
	})
}

// interfaceName looks an index up once. An index is not used again until the
// kernel has gone through all of them.
func interfaceName(known map[int]string, index int) string {
	if name, ok := known[index]; ok {
		return name
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	known[index] = i.Name
	return i.Name
}
