package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

func explainCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "the verdict on a SYN from ADDR now, from the loaded kernel program itself",
		ArgsUsage: "ADDR|NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "port", Usage: "on this `PORT` only (default: every protected port)"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1); err != nil {
				return err
			}
			addrs, err := addressesOf(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			var all []control.Explanation
			for _, addr := range addrs {
				ans, err := explainOne(c, addr)
				if err != nil {
					return err
				}
				all = append(all, ans)
			}
			return showExplanations(c, s, all)
		},
	}
}

// addressesOf is what there is to explain: the address itself, or those that
// the system's resolver has of a host's name.
func addressesOf(ctx context.Context, arg string) ([]string, error) {
	switch {
	case strings.HasPrefix(arg, policy.SPFPrefix):
		return nil, usagef("%s: an SPF record stands for networks; explain one address, or list its entries with: synward allow list", arg)
	case !policy.IsName(arg):
		return []string{arg}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(arg, ".")+".")
	if err != nil {
		return nil, fmt.Errorf("explain %s: its addresses are not known: %w; give an address instead", arg, err)
	}
	var out []string
	for _, a := range found {
		out = append(out, a.Unmap().String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func explainOne(c *cli.Context, addr string) (ans control.Explanation, err error) {
	cl, err := client(c)
	if err != nil {
		return ans, err
	}
	q := url.Values{"addr": {addr}}
	if c.IsSet("port") {
		q.Set("port", c.String("port"))
	}
	_, err = cl.Do(c.Context, http.MethodGet, "/v1/explain?"+q.Encode(), nil, &ans, nil)
	return ans, err
}

var errDisagree = errors.New("THE KERNEL DOES NOT DO WHAT THE POLICY SAYS; restart the agent, and report this as a bug with: synward explain --json")

// showExplanations prints one for each address; in JSON a name has a list.
func showExplanations(c *cli.Context, s streams, all []control.Explanation) error {
	agree := true
	for i, ans := range all {
		agree = agree && ans.Agree
		if !c.Bool("json") {
			if i > 0 {
				fmt.Fprintln(s.out)
			}
			printExplanation(s, ans)
		}
	}
	var err error
	switch {
	case c.Bool("json") && policy.IsName(c.Args().First()):
		err = printJSON(s.out, all)
	case c.Bool("json"):
		err = printJSON(s.out, all[0])
	}
	if !agree {
		err = errDisagree
	}
	return err
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
