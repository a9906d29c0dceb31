package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/loader"
)

// attachPart is the problem's part for an interface.
func attachPart(name string) string { return "interface " + name }

// attachFirst puts the filter on its interfaces at the start. One that refuses
// does not keep it off the others; it is an error where none takes it.
func (a *Agent) attachFirst(f FilterConfig) error {
	names, missing, err := f.Wanted()
	if err != nil {
		return err
	}
	if len(names)+len(missing) == 0 {
		a.log.Warn("no interface matches filter.interfaces; the filter waits for one", "interfaces", f.Interfaces)
	}
	remarks, failed := a.attachEach(names, f.Attach)
	if len(names) > 0 && len(failed) == len(names) {
		return failed[names[0]]
	}
	a.noteAttached(remarks, failed)
	on, err := a.kernel.Attachments()
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	a.problem("interfaces", missingInterfaces(missing, len(on) > 0))
	return nil
}

// attachAll puts the filter on every interface that it belongs on and is not.
func (a *Agent) attachAll(f FilterConfig) {
	names, missing, err := f.Wanted()
	remarks, failed := a.attachEach(names, f.Attach)
	on, lerr := a.kernel.Attachments()
	if lerr != nil {
		lerr = fmt.Errorf("list attachments: %w", lerr)
	}
	a.problem("attach", lerr)
	if err == nil {
		err = missingInterfaces(missing, len(on) > 0)
	}
	a.problem("interfaces", err)
	for _, at := range on {
		// with "auto" it may be a default route that is away for a moment
		if !slices.Contains(names, at.Interface) && !slices.Contains(f.Interfaces, "auto") {
			remarks[at.Interface] = "filter.interfaces does not name it; the filter stays on it until the next reload"
		}
	}
	a.noteAttached(remarks, failed)
}

// attachEach tries every interface. It says what is to be known of those that
// took the filter, and which refused, and why.
func (a *Agent) attachEach(names []string, mode loader.Mode) (remarks map[string]string, failed map[string]error) {
	on, err := a.kernel.Attachments()
	if err != nil {
		a.log.Warn("cannot list attachments", "error", err)
	}
	remarks, failed = map[string]string{}, map[string]error{}
	for _, n := range names {
		at, err := a.kernel.Attach(n, mode)
		if err != nil {
			failed[n] = err
			continue
		}
		if at.Warning != "" {
			remarks[n] = at.Warning
		}
		if !slices.ContainsFunc(on, func(o loader.Attachment) bool { return o.Index == at.Index }) {
			a.logAttached(at)
		}
	}
	return remarks, failed
}

// noteAttached takes over what attaching has told. The problem of an interface
// that has gone or is not wanted any more goes with it.
func (a *Agent) noteAttached(remarks map[string]string, failed map[string]error) {
	a.mu.Lock()
	a.remarks = remarks
	was := slices.Collect(maps.Keys(a.problems))
	a.mu.Unlock()
	for _, part := range was {
		if name, ok := strings.CutPrefix(part, attachPart("")); ok && failed[name] == nil {
			a.problem(part, nil)
		}
	}
	for name, err := range failed {
		a.problem(attachPart(name), err)
	}
}

func (a *Agent) logAttached(at loader.Attachment) {
	if at.Warning != "" {
		a.log.Warn("attached, but not as it should be", "interface", at.Interface, "mode", at.Mode, "why", at.Warning)
		return
	}
	a.log.Info("attached", "interface", at.Interface, "mode", at.Mode)
}

// detachOthers takes the filter off interfaces that the configuration does not
// name any more, at a start and a reload: a rename alone must not open a door.
// With "auto" it leaves them, for a default route that is away for a moment
// must not either.
func (a *Agent) detachOthers(f FilterConfig) {
	if slices.Contains(f.Interfaces, "auto") {
		return
	}
	names, _, err := f.Wanted()
	if err != nil {
		return
	}
	on, err := a.kernel.Attachments()
	if err != nil {
		a.log.Warn("cannot list attachments", "error", err)
		return
	}
	for _, at := range on {
		if slices.Contains(names, at.Interface) {
			continue
		}
		if err := a.kernel.Detach(at.Interface); err != nil {
			a.log.Warn("cannot detach", "interface", at.Interface, "error", err)
			continue
		}
		a.log.Info("detached: filter.interfaces does not name it", "interface", at.Interface)
	}
}

// watch asks for a look at the interfaces whenever what is watched changes.
func (a *Agent) watch(ctx context.Context, changes func(context.Context, func()) error) error {
	for {
		err := changes(ctx, func() {
			select {
			case a.relink <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("the subscription ended")
		}
		a.log.Warn("interfaces are only looked at from time to time", "error", err, "every", interval)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}
