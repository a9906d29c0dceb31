package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/relay"
)

func relayCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "relay",
		Usage: "what the relay has seen",
		Subcommands: []*cli.Command{{
			Name: "denied", Usage: "who tried to send what he has no right to, by source and account",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "top", Usage: "only the `N` with the most attempts; 0 = all"},
				&cli.StringFlag{Name: "source", Usage: "only sources within `PREFIX`"},
				&cli.StringFlag{Name: "user", Usage: "only the account `NAME`"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error { return relayDenied(c, s) },
		}, relayQuotaCommand(s)},
	}
}

func relayDenied(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	var within netip.Prefix
	if v := c.String("source"); v != "" {
		var err error
		if within, err = netip.ParsePrefix(v); err != nil {
			addr, err := netip.ParseAddr(v)
			if err != nil {
				return usagef("--source: %q is neither a prefix nor an address", v)
			}
			within = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	top, err := strconv.ParseUint(cmp.Or(c.String("top"), "0"), 10, 31)
	if err != nil {
		return usagef("--top: %q is not a whole number", c.String("top"))
	}
	raw, err := ask(c, http.MethodGet, "/v1/relay/denied?by="+map[bool]string{true: "count", false: "time"}[c.IsSet("top")])
	if err != nil {
		return err
	}
	var all relay.DeniedList
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("read the relay's answer: %w", err)
	}
	shown := []relay.Denied{}
	for _, d := range all.Denied {
		if within.IsValid() && !within.Overlaps(d.Source) || c.IsSet("user") && d.User != c.String("user") {
			continue
		}
		if top > 0 && len(shown) >= int(top) {
			break
		}
		shown = append(shown, d)
	}
	all.Denied = shown
	if c.Bool("json") {
		return printJSON(s.out, all)
	}
	now := time.Now()
	var rows [][]string
	for _, d := range shown {
		rows = append(rows, []string{
			sourceName(d.Source), dash(d.User), strconv.FormatUint(d.Count, 10), ago(d.First, now), ago(d.Last, now),
			strconv.Itoa(int(d.Port)), nullSender(d.From), plain(dash(d.Rcpt)), d.Reply,
		})
	}
	if len(rows) == 0 {
		fmt.Fprintln(s.err, "no unauthorised attempts")
	}
	if all.Forgotten > 0 {
		fmt.Fprintf(s.err, "%d attempts of sources that were quiet for longest are not shown: there were too many\n", all.Forgotten)
	}
	return table(s.out, []string{"SOURCE", "USER", "ATTEMPTS", "FIRST", "LAST", "PORT", "FROM", "TO", "REPLY"}, rows)
}

// sourceName is a source as people write it: an IPv4 address, or a prefix.
func sourceName(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
