package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/cmd/synward/top"
)

func topCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "a live view: rates by reason, sources, connections, queue; allow or deny from it",
		Description: "Keys: up and down select a source; a allows it, d denies it, each after showing what\n" +
			"that would change; e explains its verdict; s sorts by attempts, drops or open\n" +
			"connections; q ends the view. For programs: synward status --json, synward sources --json.",
		Flags: []cli.Flag{&cli.StringFlag{Name: "every", Usage: "look again after `TIME`, from 200ms to 1m", Value: "2s"}},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			every, err := time.ParseDuration(c.String("every"))
			if err != nil || every < 200*time.Millisecond || every > time.Minute {
				return usagef("--every %q: write a time from 200ms to 1m", c.String("every"))
			}
			if !isTerminal(s.in) || !isTerminal(s.out) {
				return errors.New("top: there is no terminal to show it on; use: synward status, or synward sources")
			}
			cl, err := client(c)
			if err != nil {
				return err
			}
			return top.Run(c.Context, top.Options{Desk: &desk{cl: cl}, Every: every, In: s.in, Out: s.out})
		},
	}
}

// desk is where the live view has everything from: the agent, in the words of
// the commands.
type desk struct{ cl *control.Client }

// topSources is how many sources the view can go through.
const topSources = 100

// Look asks for status and sources, and for the caps of those that have open
// connections.
func (d *desk) Look(ctx context.Context, order top.Order) (top.Look, error) {
	st, err := d.cl.Status(ctx)
	if err != nil {
		return top.Look{}, err
	}
	var src control.Sources
	q := url.Values{"top": {fmt.Sprint(topSources)}, "by": {string(order)}, "since": {"1h"}}
	if _, err := d.cl.Do(ctx, http.MethodGet, "/v1/sources?"+q.Encode(), nil, &src, nil); err != nil {
		return top.Look{}, err
	}
	now := time.Now()
	return top.Look{At: now, Head: topHead(st, now), Counters: st.Filter.Counters, Sources: src.Sources, Caps: d.caps(ctx, src.Sources)}, nil
}

// topHead are the lines on what is not a table.
func topHead(st control.Status, now time.Time) []string {
	var on []string
	for _, i := range st.Filter.Interfaces {
		on = append(on, strings.TrimSpace(i.Name+" "+string(i.Mode)))
	}
	filter := filterLine(st.Filter) + "; " + strings.Join(on, ", ")
	lines := []string{"agent     " + agentLine(st.Agent, now), "filter    " + filter, fmt.Sprintf("open      %s", plural(st.Filter.Connections, "connection", "connections"))}
	for _, row := range relayRows(st.Relay, now) {
		lines = append(lines, fmt.Sprintf("%-9s %s", row[0], row[1]))
	}
	for i, p := range st.Problems {
		if i == 2 { // the sources want room too; synward status has them all
			lines = append(lines, fmt.Sprintf("problem   and %d more", len(st.Problems)-i))
			break
		}
		lines = append(lines, "problem   "+p)
	}
	return lines
}

// maxCaps is how many sources with open connections are asked about at a look.
const maxCaps = 20

// caps are the caps on open connections of the sources that have some. One
// that cannot be told is left out.
func (d *desk) caps(ctx context.Context, sources []control.SourceUse) map[netip.Prefix]uint32 {
	out := map[netip.Prefix]uint32{}
	for _, s := range sources {
		if s.Open == 0 || len(out) == maxCaps {
			continue
		}
		ans, err := d.explanation(ctx, s.Source.Addr())
		if err != nil {
			continue
		}
		for _, v := range ans.Verdicts {
			if v.Caps != nil {
				out[s.Source] = max(out[s.Source], v.Caps.Connections)
			}
		}
	}
	return out
}

func (d *desk) explanation(ctx context.Context, addr netip.Addr) (ans control.Explanation, err error) {
	_, err = d.cl.Do(ctx, http.MethodGet, "/v1/explain?"+url.Values{"addr": {addr.String()}}.Encode(), nil, &ans, nil)
	return ans, err
}

// Explain is what synward explain prints.
func (d *desk) Explain(ctx context.Context, addr netip.Addr) (string, error) {
	ans, err := d.explanation(ctx, addr)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	printExplanation(streams{out: &text, err: &text}, ans)
	if !ans.Agree {
		text.WriteString(errDisagree.Error())
	}
	return text.String(), nil
}

// Change is what synward allow add and deny add do and print.
func (d *desk) Change(ctx context.Context, w top.Wish) (string, error) {
	entry := policy.Entry{Action: w.Action, Prefix: w.Source, Origin: policy.Operator, Note: "by synward top"}
	var ans control.Changed
	req := control.Add{Entries: []policy.Entry{entry}, Why: entry.Note, DryRun: w.DryRun}
	if _, err := d.cl.Do(ctx, http.MethodPost, "/v1/entries", req, &ans, nil); err != nil {
		return "", err
	}
	var text bytes.Buffer
	printChange(streams{out: &text, err: &text}, ans)
	return text.String(), nil
}
