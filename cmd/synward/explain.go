package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

func explainCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "the verdict on a SYN from ADDR now, from the loaded kernel program itself",
		ArgsUsage: "ADDR",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "port", Usage: "on this `PORT` only (default: every protected port)"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1); err != nil {
				return err
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			q := url.Values{"addr": {c.Args().First()}}
			if c.IsSet("port") {
				q.Set("port", c.String("port"))
			}
			var ans control.Explanation
			if _, err := cl.Do(c.Context, http.MethodGet, "/v1/explain?"+q.Encode(), nil, &ans, nil); err != nil {
				return err
			}
			if c.Bool("json") {
				err = printJSON(s.out, ans)
			} else {
				printExplanation(s, ans)
			}
			if !ans.Agree {
				err = errors.New("THE KERNEL DOES NOT DO WHAT THE POLICY SAYS; restart the agent, and report this as a bug with: synward explain --json")
			}
			return err
		},
	}
}

func printExplanation(s streams, ans control.Explanation) {
	for i, v := range ans.Verdicts {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		observed := ""
		if v.Observed {
			observed = ", but the filter only observes: it is let pass"
		}
		fmt.Fprintf(s.out, "%s -> port %d: %s (%s%s)\n", ans.Source, v.Port, paint(s.out, v.Verdict), v.Reason, observed)
		if !v.Agree {
			fmt.Fprintf(s.out, "  !! BY THE POLICY IT IS %s\n", v.Policy)
		}
		if v.Entry != nil {
			fmt.Fprintf(s.out, "  by  %s\n", v.Entry.Line())
		} else if v.EntryID == 0 || len(v.Chain) == 0 {
			fmt.Fprintf(s.out, "  by  the port's default\n")
		}
		for _, cand := range v.Chain {
			mark := " "
			if cand.Won {
				mark = "*"
			}
			of := ""
			if by := cand.Entry.Feed + cand.Entry.Name; by != "" { // never both
				of = " (" + by + ")"
			}
			fmt.Fprintf(s.out, "  %s   %s %s%s: %s\n", mark, cand.Entry.Action, cand.Entry.Prefix, of, cand.Why)
		}
		printCaps(s, v.Caps)
	}
}

func printCaps(s streams, c *control.Caps) {
	if c == nil {
		return
	}
	per := "per source"
	if c.Shared {
		per = "for the whole prefix"
	}
	conns := "no cap"
	if c.Connections > 0 {
		conns = fmt.Sprint(c.Connections)
	}
	rate := "no cap"
	if c.Rate != "0" {
		rate = fmt.Sprintf("%s, burst %d", c.Rate, c.Burst)
	}
	fmt.Fprintf(s.out, "  caps %s: connections %s (open now: %d), new ones %s\n", per, conns, c.Open, rate)
}
