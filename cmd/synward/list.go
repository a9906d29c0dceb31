package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

func listCommand(s streams, action policy.Action) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list entries, with hits and last seen",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "covering", Usage: "only those whose prefix contains `ADDR`"},
			&cli.StringFlag{Name: "within", Usage: "only those inside `PREFIX`"},
			&cli.BoolFlag{Name: "expired", Usage: "those that have expired, instead of those in force"},
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
			q := queryOf(c, "covering", "within")
			q.Set("action", string(action))
			if c.Bool("expired") {
				q.Set("expired", "1")
			}
			var ans control.Entries
			if _, err := cl.Do(c.Context, http.MethodGet, "/v1/entries?"+q.Encode(), nil, &ans, nil); err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(s.out, ans)
			}
			return printEntries(s, ans.Entries, time.Now())
		},
	}
}

func printEntries(s streams, entries []control.ListedEntry, now time.Time) error {
	if len(entries) == 0 {
		fmt.Fprintln(s.err, "no entries")
		return nil
	}
	var rows [][]string
	for _, e := range entries {
		last := time.Time{}
		if e.LastSeen != nil {
			last = *e.LastSeen
		}
		origin := string(e.Origin)
		if by := e.Feed + e.Name; by != "" { // never both
			origin += ":" + by
		}
		rows = append(rows, []string{
			e.Prefix.String(), portList(e.Ports), capList(e.Entry), expiry(e.Expires, now),
			strconv.FormatUint(e.Hits, 10), ago(last, now), origin, e.Note,
		})
	}
	return table(s.out, []string{"PREFIX", "PORTS", "OPTIONS", "EXPIRES", "HITS", "LAST SEEN", "ORIGIN", "NOTE"}, rows)
}

func portList(ports []uint16) string {
	if len(ports) == 0 {
		return "all"
	}
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ",")
}

func capList(e policy.Entry) string {
	var out []string
	if e.MaxConns != nil {
		out = append(out, fmt.Sprintf("max-conns=%d", *e.MaxConns))
	}
	if e.Rate != nil {
		out = append(out, "rate="+e.Rate.String())
	}
	if e.Burst != nil {
		out = append(out, fmt.Sprintf("burst=%d", *e.Burst))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"shared", e.Shared}, {"relay", e.Relay}, {"immune", e.Immune}} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return dash(strings.Join(out, " "))
}

func expiry(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return ago(t, now)
}
