package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/loader"
)

func statusCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "agent, interfaces, counters, connections, relay",
		Description: "Works on the filter's pins when the agent is down or hangs, and says so.",
		Flags:       []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			p, err := places(c)
			if err != nil {
				return err
			}
			st, err := control.NewClient(p.Control.Socket).Status(c.Context)
			if errors.Is(err, control.ErrDown) || errors.Is(err, control.ErrHangs) {
				st, err = pinnedStatus(p.Filter.PinDir, err)
			}
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(s.out, st)
			}
			return printStatus(s, st, time.Now())
		},
	}
}

// pinnedStatus is what the kernel tells by itself; why the agent does not.
func pinnedStatus(pins string, why error) (control.Status, error) {
	st := control.Status{Problems: []string{oneLine(why) + ". Until then rules do not change, and the relay is not looked after"}}
	f, err := loader.View(pins)
	if errors.Is(err, loader.ErrNotLoaded) {
		st.Filter.Interfaces, st.Filter.Counters = []control.Interface{}, []control.Counter{}
		st.Problems = append(st.Problems, "no filter is loaded: every source passes")
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("%w; and its pins cannot be read: %w", why, err)
	}
	defer f.Close()
	counters, err := f.Counters()
	if err != nil {
		return st, err
	}
	on, err := f.Attachments()
	if err != nil {
		return st, err
	}
	st.Filter = agent.FilterStatusOf(counters, on)
	return st, nil
}

func printStatus(s streams, st control.Status, now time.Time) error {
	for _, p := range st.Problems {
		fmt.Fprintf(s.err, "synward: warning: %s\n", p)
	}
	rows := [][]string{{"agent", agentLine(st.Agent, now)}, {"filter", filterLine(st.Filter)}}
	for _, i := range st.Filter.Interfaces {
		text := i.Name + " (" + string(i.Mode) + ")"
		if i.Mode == "" {
			text = i.Name
		} else if i.Egress != "" {
			text = fmt.Sprintf("%s (%s, egress %s)", i.Name, i.Mode, i.Egress)
		}
		if i.Warning != "" {
			text += ": " + i.Warning
		}
		rows = append(rows, []string{"interface", text})
	}
	for _, p := range st.Filter.Ports {
		rows = append(rows, []string{"port", portLine(p)})
	}
	if a := st.Agent; a != nil {
		text := fmt.Sprintf("%d allow, %d deny, %d expired", a.Allow, a.Deny, a.Expired)
		if !a.NextExpiry.IsZero() {
			text += ", next expiry " + ago(a.NextExpiry, now)
		}
		rows = append(rows, []string{"entries", text}, []string{"open", plural(st.Filter.Connections, "connection", "connections")})
	}
	if p := st.Pending; p != nil {
		rows = append(rows, []string{"waits", fmt.Sprintf("change %d is undone %s unless you say: synward policy confirm", p.Change, ago(p.Deadline, now))})
	}
	rows = append(rows, derivedRows(st.Derived, now)...)
	rows = append(rows, relayRows(st.Relay, now)...)
	if err := table(s.out, nil, rows); err != nil {
		return err
	}
	var counters [][]string
	for _, c := range st.Filter.Counters {
		port := "other"
		if c.Port != 0 {
			port = strconv.Itoa(int(c.Port))
		}
		verdict := c.Verdict
		if c.Observed {
			verdict += " (observed)"
		}
		counters = append(counters, []string{port, verdict, c.Reason, strconv.FormatUint(c.Packets, 10)})
	}
	if len(counters) > 0 {
		fmt.Fprintln(s.out)
	}
	return table(s.out, []string{"PORT", "VERDICT", "REASON", "PACKETS"}, counters)
}

// portLine says of a port what is not as usual.
func portLine(p control.Port) string {
	text := fmt.Sprintf("%d, default %s", p.Port, p.Default)
	for _, more := range []struct {
		set  bool
		text string
	}{{p.Mode == "observe", "observed only"}, {p.Filter == "all", "every segment"}, {p.Refuse == "reset", "refuses with a reset"}, {p.Server == "elsewhere", "server elsewhere"}} {
		if more.set {
			text += ", " + more.text
		}
	}
	return text
}

func agentLine(a *control.AgentStatus, now time.Time) string {
	if a == nil {
		return "down"
	}
	return fmt.Sprintf("running, pid %d, since %s, version %s", a.PID, ago(a.Since, now), a.Version)
}

func filterLine(f control.FilterStatus) string {
	text := "loaded"
	switch {
	case !f.Loaded:
		return "not loaded"
	case f.Mode == "observe":
		text = "loaded, observing: it drops nothing"
	case f.Mode != "":
		text = "loaded, enforcing"
	}
	if !slices.ContainsFunc(f.Interfaces, func(i control.Interface) bool { return i.Mode != "" }) {
		text += "; on no interface: it protects nothing"
	}
	return text
}
