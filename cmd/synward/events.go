package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

func eventsCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:        "events",
		Usage:       "what was dropped or refused, when and why",
		Description: "With --json one document a line. The agent keeps events on disk, the last 32 MiB of them.\nWhat a flood repeats is put together, and told at a bounded rate: such gaps are said.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Usage: "go on with new ones until interrupted"},
			&cli.StringFlag{Name: "since", Usage: "only those of the last `TIME`, such as 1h"},
			&cli.StringFlag{Name: "until", Usage: "only those older than `TIME`"},
			&cli.StringFlag{Name: "source", Usage: "only from `PREFIX`"},
			&cli.StringFlag{Name: "reason", Usage: "only for these `REASONS`, such as no-entry,denied"},
			&cli.StringFlag{Name: "port", Usage: "only on `PORT`"},
			&cli.BoolFlag{Name: "relay", Usage: "the relay's session outcomes instead of the filter's drops"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			q := queryOf(c, "since", "until", "source", "reason", "port")
			if c.Bool("follow") && c.IsSet("until") {
				return usagef("events: --follow waits for what is to come, --until ends before: give one of them")
			}
			if c.Bool("follow") {
				q.Set("follow", "1")
			}
			path, show := "/v1/events?", eventPrinter(c)
			if c.Bool("relay") {
				if len(q) > 1 || len(q) == 1 && !q.Has("follow") {
					return usagef("events --relay: only --follow goes with it; pipe --json through a tool of yours")
				}
				path, show = "/v1/outcomes?", showOutcome
			}
			return cl.Lines(c.Context, path+q.Encode(), func(line json.RawMessage) error {
				if c.Bool("json") {
					_, err := fmt.Fprintf(s.out, "%s\n", line)
					return err
				}
				return show(s, line)
			})
		},
	}
}

// eventPrinter prints events, and of each source and port once the command that
// would let it in.
func eventPrinter(c *cli.Context) func(streams, json.RawMessage) error {
	told := map[string]bool{}
	return func(s streams, line json.RawMessage) error {
		e, err := showEvent(s, line)
		if err == nil && e.Allow != "" && !told[e.Allow] {
			told[e.Allow] = true
			_, err = fmt.Fprintf(s.out, "                     to let it in: %s\n", ready(c, e.Allow))
		}
		return err
	}
}

func showEvent(s streams, line json.RawMessage) (control.Event, error) {
	var e control.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	did := "dropped"
	if e.Observed {
		did = "would be dropped"
	}
	text := fmt.Sprintf("%s  %s %s -> port %d  %s", e.Time.Local().Format(time.DateTime), did, e.Source, e.Port, e.Reason)
	if e.Count > 1 {
		text += fmt.Sprintf("  %d attempts", e.Count)
	}
	if e.Interface != "" {
		text += "  on " + e.Interface
	}
	if e.Suppressed > 0 {
		text += fmt.Sprintf("  (%s before it held back)", plural(int(e.Suppressed), "event", "events"))
	}
	_, err := fmt.Fprintln(s.out, text)
	return e, err
}

// showOutcome prints an outcome's keys in a fixed order. What a stranger sent
// is in them, so every value is quoted where it is not plain.
func showOutcome(s streams, line json.RawMessage) error {
	var o map[string]any
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("read outcome: %w", err)
	}
	var b strings.Builder
	for i, key := range []string{"time", "kind", "source", "user", "item", "from", "rcpt", "next_hop", "reply", "message"} {
		v, ok := o[key]
		if text := fmt.Sprint(v); !ok || text == "" {
			continue
		} else if i < 2 {
			fmt.Fprintf(&b, "%s  ", plain(text))
		} else {
			fmt.Fprintf(&b, "%s=%s ", key, plain(text))
		}
	}
	_, err := fmt.Fprintln(s.out, strings.TrimSpace(b.String()))
	return err
}

// plain is text as it is, or quoted where a terminal might act on it.
func plain(s string) string {
	if q := fmt.Sprintf("%+q", s); q != `"`+s+`"` || strings.Contains(s, " ") {
		return q
	}
	return s
}
