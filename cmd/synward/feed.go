package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "also where a name or feed brings more or wider prefixes than the growth guard lets pass"}
}

func feedCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "feed",
		Usage: "lists of prefixes that somebody else keeps, by file or HTTPS",
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a feed, or change the one of that name", ArgsUsage: "NAME URL",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "deny", Usage: "what it lists is denied, unless an entry of the operator covers it"},
					&cli.BoolFlag{Name: "allow", Usage: "what it lists is allowed, unless an entry of the operator covers it"},
					&cli.StringFlag{Name: "ports", Usage: "on these `PORTS` only, such as 25,587 (default: every protected port)"},
					&cli.StringFlag{Name: "every", Usage: "ask for it every `TIME`, 1m to 30d", Value: "1h"},
					&cli.StringFlag{Name: "note", Usage: "`TEXT` for people"},
					killFlag(), yesFlag(), dryRunFlag(), jsonFlag(),
				},
				Action: func(c *cli.Context) error { return addFeed(c, s) },
			},
			{
				Name: "remove", Usage: "remove feeds with all their entries", ArgsUsage: "NAME…",
				Flags:  []cli.Flag{noteFlag(), killFlag(), dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return removeFeeds(c, s) },
			},
			{
				Name: "list", Usage: "feeds and names, and how they stand", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return listDerived(c, s) },
			},
			{
				Name: "refresh", Usage: "ask for feeds now (default: for all)", ArgsUsage: "[NAME…]",
				Flags: []cli.Flag{noteFlag(), yesFlag(), dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error {
					return refresh(c, s, control.Refresh{Feeds: true})
				},
			},
		},
	}
}

// refreshNamesCommand asks for the names of an action now.
func refreshNamesCommand(s streams, action policy.Action) *cli.Command {
	return &cli.Command{
		Name: "refresh", Usage: "ask for names and SPF records now (default: for all)", ArgsUsage: "[NAME…]",
		Flags: []cli.Flag{noteFlag(), yesFlag(), dryRunFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			return refresh(c, s, control.Refresh{Action: action})
		},
	}
}

func refresh(c *cli.Context, s streams, req control.Refresh) error {
	req.Names, req.Yes, req.Why, req.DryRun = c.Args().Slice(), c.Bool("yes"), c.String("note"), c.Bool("dry-run")
	return sendChange(c, s, "/v1/derived/refresh", req, nil)
}

func addFeed(c *cli.Context, s streams) error {
	if err := argCount(c, 2, 2); err != nil {
		return err
	}
	if c.Bool("deny") == c.Bool("allow") {
		return usagef("say what becomes of what the feed lists: --deny or --allow")
	}
	req := control.AddFeed{
		Name: c.Args().Get(0), URL: c.Args().Get(1), Every: c.String("every"), Entry: policy.Entry{Action: policy.Deny, Note: c.String("note")},
		Yes: c.Bool("yes"), Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill"),
	}
	if c.Bool("allow") {
		req.Entry.Action = policy.Allow
	}
	var err error
	if v := c.String("ports"); c.IsSet("ports") {
		if req.Entry.Ports, err = policy.ParsePorts(v, nil); err != nil {
			return usagef("--ports: %w", err)
		}
	}
	if !strings.Contains(req.URL, ":") { // a file of here; the agent has another directory
		if req.URL, err = filepath.Abs(req.URL); err != nil {
			return fmt.Errorf("find %s: %w", req.URL, err)
		}
	}
	return sendChange(c, s, "/v1/feeds", req, nil)
}

func removeFeeds(c *cli.Context, s streams) error {
	if err := argCount(c, 1, -1); err != nil {
		return err
	}
	req := control.RemoveFeeds{Names: c.Args().Slice(), Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
	return sendChange(c, s, "/v1/feeds/remove", req, nil)
}

func listDerived(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	var ans control.DerivedList
	if _, err := cl.Do(c.Context, http.MethodGet, "/v1/derived", nil, &ans, nil); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, ans)
	}
	if len(ans.Derived) == 0 {
		fmt.Fprintln(s.err, "no feeds and no names")
		return nil
	}
	now := time.Now()
	var rows [][]string
	for _, d := range ans.Derived {
		rows = append(rows, []string{
			d.Kind, d.Name, string(d.Action), portList(d.Ports), strconv.Itoa(d.Prefixes), ago(d.Good, now), ago(d.Next, now), dash(d.URL), standing(d),
		})
	}
	return table(s.out, []string{"KIND", "NAME", "ACTION", "PORTS", "PREFIXES", "GOOD", "NEXT", "FROM", "STATE"}, rows)
}

// standing is how a name or feed stands, in words.
func standing(d control.Derived) string {
	switch {
	case d.Error != "":
		return "the last good set stays: " + d.Error
	case d.Held != "":
		return "held back: " + d.Held
	case len(d.Notes) > 0:
		return "without " + strings.Join(d.Notes, "; ")
	}
	return "good"
}

// derivedRows are a line of status for all names and feeds; what is wrong with
// one stands among the problems.
func derivedRows(all []control.Derived, now time.Time) [][]string {
	if len(all) == 0 {
		return nil
	}
	feeds, wrong := 0, 0
	var next time.Time
	for _, d := range all {
		if next.IsZero() || !d.Next.IsZero() && d.Next.Before(next) {
			next = d.Next
		}
		if d.Kind == control.KindFeed {
			feeds++
		}
		if d.Error != "" || d.Held != "" {
			wrong++
		}
	}
	text := fmt.Sprintf("%s, %s, %d not up to date, next asked for %s", plural(len(all)-feeds, "name", "names"), plural(feeds, "feed", "feeds"), wrong, ago(next, now))
	return [][]string{{"derived", text}}
}
