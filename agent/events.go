package agent

import (
	"context"
	"net"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/loader"
)

// pumpEvents moves the kernel's events into the ring. Losing them must not end
// the agent: it tries again.
func (a *Agent) pumpEvents(ctx context.Context) error {
	names := map[int]string{}
	for {
		err := a.kernel.events(ctx, func(e loader.Event) {
			a.events.add(control.Event{
				Time: e.Time, Source: e.Source, Port: e.Port, Reason: e.Reason.String(), Observed: e.Observed,
				EntryID: e.EntryID, Interface: interfaceName(names, e.Ifindex),
				Count: e.Count, Suppressed: e.Suppressed,
			})
		})
		if ctx.Err() != nil {
			return nil
		}
		a.problem("events", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
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
