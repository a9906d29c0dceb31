package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
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
		ArgsUsage: "ADDR|NAME|spf:DOMAIN",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "port", Usage: "on this `PORT` only (default: every protected port)"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1); err != nil {
				return err
			}
			spots, err := spotsOf(c, s, c.Args().First())
			if err != nil {
				return err
			}
			var all []control.Explanation
			for _, p := range spots {
				ans, err := explainOne(c, p.addr)
				if err != nil {
					return err
				}
				ans.Within = p.within
				all = append(all, ans)
			}
			return showExplanations(c, s, all)
		},
	}
}

// spot is an address to explain; of a network that a name stands for it is one
// from within.
type spot struct {
	addr   string
	within netip.Prefix
}

// mostSpots bounds what is explained of one name.
const mostSpots = 200

// spotsOf is what there is to explain: the address itself, or for a name each
// that the agent's resolver has of it.
func spotsOf(c *cli.Context, s streams, arg string) ([]spot, error) {
	if !policy.IsName(arg) {
		return []spot{{addr: arg}}, nil
	}
	ans, err := resolve(c, arg)
	if err != nil {
		return nil, fmt.Errorf("explain %w; give an address instead", err)
	}
	for _, n := range ans.Notes {
		fmt.Fprintf(s.err, "synward: warning: %s: %s\n", ans.Name, n)
	}
	var out []spot
	for _, p := range ans.Prefixes {
		if p.IsSingleIP() {
			out = append(out, spot{addr: p.Addr().String()})
			continue
		}
		within, err := spotsWithin(c, p)
		if err != nil {
			return nil, err
		}
		out = append(out, within...)
	}
	if len(out) > mostSpots {
		fmt.Fprintf(s.err, "synward: warning: %s: %d of %d addresses are explained; give one for another\n", ans.Name, mostSpots, len(out))
		out = out[:mostSpots]
	}
	return out, nil
}

// resolve asks the agent what a name stands for, by whose resolver entries are
// made; where that has no answer for a host, this host may know it otherwise.
func resolve(c *cli.Context, name string) (ans control.Resolved, err error) {
	err = get(c, "/v1/names/resolve?"+url.Values{"name": {name}}.Encode(), &ans)
	if refused := (*control.Error)(nil); !errors.As(err, &refused) || refused.Status != http.StatusUnprocessableEntity || strings.HasPrefix(name, policy.SPFPrefix) {
		return ans, err
	}
	ctx, cancel := context.WithTimeout(c.Context, 5*time.Second)
	defer cancel()
	own := net.Resolver{PreferGo: true} // the C library's finds no name with a final dot in /etc/hosts
	found, here := own.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	if here != nil {
		return ans, err
	}
	ans = control.Resolved{Name: name, Notes: []string{"its addresses are those that this host's own resolver has: the agent's has none"}}
	for _, a := range found {
		ans.Prefixes = append(ans.Prefixes, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
	}
	ans.Prefixes = policy.Compact(ans.Prefixes)
	return ans, nil
}

// spotsWithin are addresses of a network by which it is explained whole: its
// first, and the first of each entry within it.
func spotsWithin(c *cli.Context, p netip.Prefix) ([]spot, error) {
	var ans control.Entries
	if err := get(c, "/v1/entries?"+url.Values{"within": {p.String()}}.Encode(), &ans); err != nil {
		return nil, err
	}
	out := []spot{{addr: p.Addr().String(), within: p}}
	for _, e := range ans.Entries {
		if at := (spot{addr: e.Prefix.Addr().String(), within: e.Prefix}); !slices.ContainsFunc(out, func(o spot) bool { return o.addr == at.addr }) {
			out = append(out, at)
		}
	}
	return out, nil
}

// get asks the agent.
func get(c *cli.Context, path string, into any) error {
	cl, err := client(c)
	if err == nil {
		_, err = cl.Do(c.Context, http.MethodGet, path, nil, into, nil)
	}
	return err
}

func explainOne(c *cli.Context, addr string) (ans control.Explanation, err error) {
	q := url.Values{"addr": {addr}}
	if c.IsSet("port") {
		q.Set("port", c.String("port"))
	}
	return ans, get(c, "/v1/explain?"+q.Encode(), &ans)
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
		from := ans.Source.String()
		if ans.Within.IsValid() {
			from += " of " + ans.Within.String()
		}
		fmt.Fprintf(s.out, "%s -> port %d: %s (%s%s)\n", from, v.Port, paint(s.out, v.Verdict), v.Reason, observed)
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
