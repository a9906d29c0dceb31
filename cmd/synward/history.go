package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

func noteFlag() cli.Flag {
	return &cli.StringFlag{Name: "note", Usage: "why: `TEXT` for history"}
}

// historyCommands are those of "policy" that look or go back.
func historyCommands(s streams) []*cli.Command {
	return []*cli.Command{
		{
			Name: "confirm", Usage: "keep what was applied with --confirm", Flags: []cli.Flag{dryRunFlag(), jsonFlag()},
			Action: func(c *cli.Context) error { return policyConfirm(c, s) },
		},
		{
			Name: "history", Usage: "what was changed, by whom, when and why", ArgsUsage: "[N]",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "last", Usage: "the last `N` changes; 0 = all", Value: "50"}, jsonFlag(),
			},
			Description: "With a change's number N: its entries.",
			Action:      func(c *cli.Context) error { return policyHistory(c, s) },
		},
		{
			Name: "undo", Usage: "take a change back", ArgsUsage: "[N]",
			Description: "N is the change's number in policy history; without it, the latest change that has not been undone.\nAn undo is a change itself, and can be undone.",
			Flags:       []cli.Flag{noteFlag(), killFlag(), dryRunFlag(), jsonFlag()},
			Action:      func(c *cli.Context) error { return policyUndo(c, s) },
		},
	}
}

// changeNumber is the argument N; 0 where there is none.
func changeNumber(c *cli.Context) (uint64, error) {
	if err := argCount(c, 0, 1); err != nil || c.NArg() == 0 {
		return 0, err
	}
	n, err := strconv.ParseUint(c.Args().First(), 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%q is not a change's number; synward policy history lists them", c.Args().First())
	}
	return n, nil
}

func policyConfirm(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	var ans control.Confirmed
	req := map[string]bool{"dry_run": c.Bool("dry-run")}
	if _, err := cl.Do(c.Context, http.MethodPost, "/v1/policy/confirm", req, &ans, nil); err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return printJSON(s.out, ans)
	case ans.Change == 0:
		fmt.Fprintln(s.out, "nothing waits for a confirmation")
	case ans.DryRun:
		fmt.Fprintf(s.out, "change %d would be confirmed\ndry run: nothing changed\n", ans.Change)
	default:
		fmt.Fprintf(s.out, "change %d confirmed\n", ans.Change)
	}
	return nil
}

func policyUndo(c *cli.Context, s streams) error {
	n, err := changeNumber(c)
	if err != nil {
		return err
	}
	req := control.Undo{Change: n, Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
	return sendChange(c, s, "/v1/policy/undo", req, nil)
}

func policyHistory(c *cli.Context, s streams) error {
	n, err := changeNumber(c)
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	if n != 0 {
		var ans control.Change
		if _, err := cl.Do(c.Context, http.MethodGet, fmt.Sprintf("/v1/history/%d", n), nil, &ans, nil); err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSON(s.out, ans)
		}
		return printOneChange(s, ans)
	}
	var ans control.History
	q := url.Values{"last": {c.String("last")}}
	if _, err := cl.Do(c.Context, http.MethodGet, "/v1/history?"+q.Encode(), nil, &ans, nil); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, ans)
	}
	if len(ans.Changes) == 0 {
		fmt.Fprintln(s.err, "no changes yet")
	}
	var rows [][]string
	for _, ch := range ans.Changes {
		rows = append(rows, []string{
			strconv.FormatUint(ch.ID, 10), ch.Time.Local().Format(time.DateTime), asker(ch), ch.Command,
			counts(ch.Added, ch.Changed, ch.Removed), counts(ch.Rules.Added, ch.Rules.Updated, ch.Rules.Removed), remarks(ch),
		})
	}
	return table(s.out, []string{"CHANGE", "WHEN", "WHO", "COMMAND", "ENTRIES", "RULES", "WHY"}, rows)
}

func asker(ch control.Change) string {
	if ch.UID == nil {
		return ch.By
	}
	return fmt.Sprintf("%s (uid %d)", ch.By, *ch.UID)
}

// counts is "+2 ~1 -3", without what is zero.
func counts(added, changed, removed int) string {
	var out []string
	for _, n := range []struct {
		sign string
		n    int
	}{{"+", added}, {"~", changed}, {"-", removed}} {
		if n.n > 0 {
			out = append(out, n.sign+strconv.Itoa(n.n))
		}
	}
	return dash(strings.Join(out, " "))
}

func remarks(ch control.Change) string {
	var out []string
	if ch.Undoes != 0 && ch.Command != "rollback" {
		out = append(out, fmt.Sprintf("undoes %d", ch.Undoes))
	}
	if ch.Why != "" {
		out = append(out, ch.Why)
	}
	if ch.UndoneBy != 0 {
		out = append(out, fmt.Sprintf("[undone by %d]", ch.UndoneBy))
	}
	return strings.Join(out, " ")
}

func printOneChange(s streams, ch control.Change) error {
	rows := [][]string{
		{"change", strconv.FormatUint(ch.ID, 10)}, {"when", ch.Time.Local().Format(time.DateTime)}, {"who", asker(ch)},
		{"command", ch.Command}, {"why", dash(ch.Why)}, {"rules", counts(ch.Rules.Added, ch.Rules.Updated, ch.Rules.Removed)},
	}
	if ch.Undoes != 0 {
		rows = append(rows, []string{"undoes", strconv.FormatUint(ch.Undoes, 10)})
	}
	if ch.UndoneBy != 0 {
		rows = append(rows, []string{"undone by", strconv.FormatUint(ch.UndoneBy, 10)})
	}
	if err := table(s.out, nil, rows); err != nil || ch.Entries == nil {
		return err
	}
	fmt.Fprintln(s.out)
	printEntryChanges(s, "", control.ChangeTotal{Added: ch.Added, Changed: ch.Changed, Removed: ch.Removed}, ch.Entries.Added, ch.Entries.Changed, ch.Entries.Removed)
	return nil
}
