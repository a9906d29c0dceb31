package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

func learnCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "learn", Usage: "propose entries for sources that no entry covers, as a policy file",
		Description: "The file holds the present entries too: review it, and bring it in with synward policy apply --confirm 10m FILE.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "from the attempts of the last `TIME` (default: 7d)"},
			&cli.StringFlag{Name: "min", Usage: "sources and networks with at least `N` attempts (default: 1)"},
			&cli.StringFlag{Name: "port", Usage: "on this `PORT` only"},
			&cli.BoolFlag{Name: "new", Usage: "the proposed entries alone, without those that are there"},
			&cli.BoolFlag{Name: "no-names", Usage: "do not ask the resolver for the sources' names"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			var ans control.Learned
			if err := askFor(c, "/v1/learn", &ans, "since", "min", "port"); err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(s.out, ans)
			}
			if !c.Bool("new") {
				fmt.Fprint(s.out, ans.Policy)
			}
			var names map[netip.Addr]string
			if !c.Bool("no-names") {
				names = reverseNames(c.Context, ans.Proposals)
			}
			fmt.Fprintf(s.out, "# proposed from attempts since %s: %s\n", ans.Since.Local().Format(time.DateTime), plural(len(ans.Proposals), "entry", "entries"))
			for _, p := range ans.Proposals {
				printProposal(s, p, names)
			}
			return nil
		},
	}
}

// shownSources is how many sources of a proposal are named.
const shownSources = 8

func printProposal(s streams, p control.Proposal, names map[netip.Addr]string) {
	for i, src := range p.Sources {
		if i == shownSources {
			fmt.Fprintf(s.out, "#   and %d more\n", len(p.Sources)-i)
			break
		}
		if name := names[src.Addr()]; name != "" || len(p.Sources) > 1 {
			fmt.Fprintf(s.out, "#   %s\n", strings.TrimSpace(src.String()+" "+name))
		}
	}
	fmt.Fprintln(s.out, p.Entry.Line())
}

// reverseNames asks the system's resolver who the sources say they are. The
// names are the sources' own word and prove nothing; where no resolver answers
// soon there are none.
func reverseNames(ctx context.Context, proposals []control.Proposal) map[netip.Addr]string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	names, slots := map[netip.Addr]string{}, make(chan struct{}, 16)
	for _, p := range proposals {
		for _, src := range p.Sources[:min(len(p.Sources), shownSources)] {
			all.Add(1)
			go func() {
				defer all.Done()
				slots <- struct{}{}
				defer func() { <-slots }()
				if found, err := net.DefaultResolver.LookupAddr(ctx, src.Addr().String()); err == nil && len(found) > 0 {
					mu.Lock()
					names[src.Addr()] = plain(strings.TrimSuffix(found[0], "."))
					mu.Unlock()
				}
			}()
		}
	}
	all.Wait()
	return names
}
