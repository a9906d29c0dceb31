package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

// askFor sends a GET with the flags that are set as its query.
func askFor(c *cli.Context, path string, out any, flags ...string) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	_, err = cl.Do(c.Context, http.MethodGet, path+"?"+queryOf(c, flags...).Encode(), nil, out, nil)
	return err
}

// queryOf holds those of the flags that are set.
func queryOf(c *cli.Context, flags ...string) url.Values {
	q := url.Values{}
	for _, name := range flags {
		if c.IsSet(name) {
			q.Set(name, c.String(name))
		}
	}
	return q
}

func sourcesCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "sources", Usage: "who comes: attempts, drops and open connections by source",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "top", Usage: "the first `N`; 0 = all (default: 20)"},
			&cli.StringFlag{Name: "by", Usage: "sort by `WHAT`: attempts, dropped or open (default: attempts)"},
			&cli.StringFlag{Name: "since", Usage: "of the last `TIME`, such as 1h or 7d (default: 24h)"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			var ans control.Sources
			if err := askFor(c, "/v1/sources", &ans, "top", "by", "since"); err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(s.out, ans)
			}
			return printSources(s, ans, time.Now())
		},
	}
}

func printSources(s streams, ans control.Sources, now time.Time) error {
	if len(ans.Sources) == 0 {
		fmt.Fprintln(s.err, "nobody has come")
	}
	var rows [][]string
	for _, u := range ans.Sources {
		var reasons []string
		for r, n := range u.Reasons {
			reasons = append(reasons, fmt.Sprintf("%s %s", r, thousands(n)))
		}
		slices.Sort(reasons)
		rows = append(rows, []string{
			u.Source.String(), thousands(u.Attempts), thousands(u.Passed), thousands(u.Dropped), thousands(u.Open), thousands(u.Peak),
			unknownPorts(u.Ports), ago(u.Last, now), strings.Join(reasons, ", "),
		})
	}
	if err := table(s.out, []string{"SOURCE", "ATTEMPTS", "PASSED", "DROPPED", "OPEN", "PEAK", "PORTS", "LAST SEEN", "WHY"}, rows); err != nil {
		return err
	}
	if ans.Others > 0 {
		fmt.Fprintf(s.err, "and %s (--top 0 shows all)\n", plural(ans.Others, "source more", "sources more"))
	}
	if ans.Lost > 0 {
		fmt.Fprintf(s.err, "%s attempts of today are of sources that there was no room to tell apart\n", thousands(ans.Lost))
	}
	return nil
}

func reviewCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "review", Usage: "entries that are not needed any more, too wide, expired, or there twice",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "days", Usage: "without a hit for `N` days (default: 30)"}, jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			var ans control.Review
			if err := askFor(c, "/v1/review", &ans, "days"); err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(s.out, ans)
			}
			for _, f := range ans.Findings {
				fmt.Fprintf(s.out, "%-10s %s\n           %s\n           $ %s\n", f.Kind, f.Entry.Line(), f.Why, ready(c, f.Command))
			}
			if len(ans.Findings) == 0 {
				fmt.Fprintln(s.out, "nothing to mend")
			}
			fmt.Fprintf(s.err, "hits are known since %s\n", ans.Since.Local().Format(time.DateTime))
			return nil
		},
	}
}
