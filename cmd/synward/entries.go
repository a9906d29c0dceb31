package main

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// entryCommand is "allow" or "deny", which differ in their flags alone.
func entryCommand(s streams, action policy.Action) *cli.Command {
	what := map[policy.Action]string{
		policy.Allow: "let sources in, up to their caps",
		policy.Deny:  "make a hole in an allow entry, or block on a port whose default is pass",
	}
	return &cli.Command{
		Name:  string(action),
		Usage: what[action],
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add entries, or change those of the same prefix", ArgsUsage: "PREFIX… (or NAME…, spf:DOMAIN…; - reads them from stdin)",
				Flags:  addFlags(action),
				Action: func(c *cli.Context) error { return addEntries(c, s, action) },
			},
			{
				Name: "remove", Usage: "remove entries", ArgsUsage: "PREFIX… (or NAME…, spf:DOMAIN…; - reads them from stdin)",
				Flags:  []cli.Flag{originFlag(), noteFlag(), killFlag(), dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return removeEntries(c, s, action) },
			},
			listCommand(s, action), refreshNamesCommand(s, action),
		},
	}
}

func originFlag() cli.Flag {
	return &cli.StringFlag{Name: "origin", Usage: "only those of `ORIGIN`: operator, file or learned (default: whichever there are)"}
}

func killFlag() cli.Flag {
	return &cli.BoolFlag{Name: "kill", Usage: "also end open connections of sources that no longer pass"}
}

func addFlags(action policy.Action) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "ports", Usage: "on these `PORTS` only, such as 25,587 (default: every protected port)"},
		&cli.StringFlag{Name: "ttl", Usage: "ends by itself after `TIME`, such as 30m, 24h, 7d"},
		&cli.StringFlag{Name: "note", Usage: "`TEXT` for people"},
	}
	if action == policy.Allow {
		flags = append(flags,
			&cli.StringFlag{Name: "max-conns", Usage: "at most `N` open connections per source; 0 = no cap"},
			&cli.StringFlag{Name: "rate", Usage: "at most `N/s` (or /m, /h) new connections per source; 0 = no cap"},
			&cli.StringFlag{Name: "burst", Usage: "`N` new connections at once before the rate counts"},
			&cli.BoolFlag{Name: "shared", Usage: "the caps count for the whole prefix"},
			&cli.BoolFlag{Name: "relay", Usage: "these sources may relay without AUTH"},
			&cli.BoolFlag{Name: "immune", Usage: "a learned deny does not touch them"})
	} else {
		flags = append(flags, killFlag())
	}
	return append(flags, yesFlag(), dryRunFlag(), jsonFlag())
}

func addEntries(c *cli.Context, s streams, action policy.Action) error {
	prefixes, names, warnings, err := readSources(c, s)
	if err != nil {
		return err
	}
	entry, err := entryOf(c, action, time.Now())
	if err != nil {
		return err
	}
	if len(names) > 0 {
		req := control.AddNames{Names: names, Entry: entry, Yes: c.Bool("yes"), Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
		return sendChange(c, s, "/v1/names", req, warnings)
	}
	req := control.Add{Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
	for _, p := range prefixes {
		entry.Prefix = p
		req.Entries = append(req.Entries, entry)
	}
	return sendChange(c, s, "/v1/entries", req, warnings)
}

func removeEntries(c *cli.Context, s streams, action policy.Action) error {
	prefixes, names, warnings, err := readSources(c, s)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if c.IsSet("origin") {
			return usagef("--origin is of prefixes; %s is a name", names[0])
		}
		req := control.RemoveNames{Action: action, Names: names, Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
		return sendChange(c, s, "/v1/names/remove", req, warnings)
	}
	req := control.Remove{Action: action, Prefixes: prefixes, Origin: policy.Origin(c.String("origin")), Why: c.String("note"), DryRun: c.Bool("dry-run"), Kill: c.Bool("kill")}
	return sendChange(c, s, "/v1/entries/remove", req, warnings)
}

// entryOf is the entry by the flags, without its prefix.
func entryOf(c *cli.Context, action policy.Action, now time.Time) (e policy.Entry, err error) {
	e = policy.Entry{Action: action, Origin: policy.Operator, Note: c.String("note"), Shared: c.Bool("shared"), Relay: c.Bool("relay"), Immune: c.Bool("immune")}
	if v := c.String("ports"); c.IsSet("ports") {
		if e.Ports, err = policy.ParsePorts(v, nil); err != nil {
			return e, usagef("--ports: %w", err)
		}
	}
	if v := c.String("ttl"); c.IsSet("ttl") {
		ttl, err := policy.ParseTTL(v)
		if err != nil {
			return e, usagef("--ttl: %w", err)
		}
		e.Expires = now.Add(ttl)
	}
	if v := c.String("rate"); c.IsSet("rate") {
		r, err := policy.ParseRate(v)
		if err != nil {
			return e, usagef("--rate: %w", err)
		}
		e.Rate = &r
	}
	if e.MaxConns, err = countFlag(c, "max-conns"); err != nil {
		return e, err
	}
	e.Burst, err = countFlag(c, "burst")
	return e, err
}

// countFlag is a number's flag, nil where it is not set.
func countFlag(c *cli.Context, name string) (*uint32, error) {
	if !c.IsSet(name) {
		return nil, nil
	}
	var n uint64
	v := c.String(name)
	if _, err := fmt.Sscanf(v, "%d", &n); err != nil || fmt.Sprint(n) != v || n > math.MaxUint32 {
		return nil, usagef("--%s %q: write a number from 0 to %d", name, v, uint32(math.MaxUint32))
	}
	out := uint32(n)
	return &out, nil
}

// readSources reads the arguments, and for "-" what stands on stdin: one or
// more prefixes or names a line, # begins a comment. One that is bad fails all.
func readSources(c *cli.Context, s streams) (out []netip.Prefix, names, warnings []string, err error) {
	if err := argCount(c, 1, -1); err != nil {
		return nil, nil, nil, err
	}
	add := func(where, word string) error {
		if policy.IsName(word) {
			name, err := policy.ParseName(word)
			if err != nil {
				return usagef("%s%w; nothing changed", where, err)
			}
			names = append(names, name)
			return nil
		}
		p, warning, err := policy.ParsePrefix(word)
		if err != nil {
			return usagef("%s%w; nothing changed", where, err)
		}
		if warning != "" {
			warnings = append(warnings, where+warning)
		}
		out = append(out, p)
		return nil
	}
	for _, arg := range c.Args().Slice() {
		if arg != "-" {
			if err := add("", arg); err != nil {
				return nil, nil, nil, err
			}
			continue
		}
		in, done := s.in, func() {}
		if !isTerminal(in) {
			in, done = watched(s.err, in, sizeOf(in), "reading stdin")
		}
		defer done()
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			text, _, _ := strings.Cut(lines.Text(), "#")
			at := 0
			for _, word := range strings.Fields(text) {
				at += strings.Index(text[at:], word)
				if err := add(fmt.Sprintf("stdin:%d:%d: ", n, utf8.RuneCountInString(text[:at])+1), word); err != nil {
					return nil, nil, nil, err
				}
				at += len(word)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, nil, nil, fmt.Errorf("read stdin: %w; nothing changed", err)
		}
	}
	switch {
	case len(out)+len(names) == 0:
		return nil, nil, nil, usagef("no prefix on stdin")
	case len(out) > 0 && len(names) > 0:
		return nil, nil, nil, usagef("%s is a name and %s a prefix: give them in two commands; nothing changed", names[0], out[0])
	}
	return out, names, warnings, nil
}

// sendChange sends a change, waits until it is in force, and prints it. What
// takes its time shows on a terminal that it goes on.
func sendChange(c *cli.Context, s streams, path string, req any, warnings []string) error {
	cl, err := client(c)
	if err != nil {
		return err
	}
	var ans control.Changed
	if !c.Bool("json") {
		path += fmt.Sprintf("?show=%d", manyLines)
	}
	what := "bringing the change in force"
	if c.Bool("dry-run") {
		what = "working out the change"
	}
	done := spin(s.err, what)
	_, err = cl.Do(c.Context, http.MethodPost, path, req, &ans, nil)
	done()
	if err != nil {
		return err
	}
	ans.Warnings = append(warnings, ans.Warnings...)
	if c.Bool("json") {
		return printJSON(s.out, ans)
	}
	printChange(s, ans)
	return nil
}

// manyLines is how many changed entries of a kind are shown to a person.
const manyLines = 100

// printEntryChanges shows the first entries of each kind, and how many more
// there are.
func printEntryChanges(s streams, would string, total control.ChangeTotal, added []policy.Entry, changed []policy.Changed, removed []policy.Entry) {
	list := func(did string, n, have int, line func(i int)) {
		for i := range min(have, manyLines) {
			line(i)
		}
		if n > manyLines {
			fmt.Fprintf(s.out, "%s%s %d more (--json shows all)\n", would, did, n-manyLines)
		}
	}
	list("added  ", total.Added, len(added), func(i int) { fmt.Fprintf(s.out, "%sadded    %s\n", would, added[i].Line()) })
	list("changed", total.Changed, len(changed), func(i int) {
		fmt.Fprintf(s.out, "%schanged  %s\n%s  before %s\n", would, changed[i].New.Line(), strings.Repeat(" ", len(would)), changed[i].Old.Line())
	})
	list("removed", total.Removed, len(removed), func(i int) { fmt.Fprintf(s.out, "%sremoved  %s\n", would, removed[i].Line()) })
}

func printChange(s streams, ans control.Changed) {
	for _, w := range ans.Warnings {
		fmt.Fprintf(s.err, "synward: warning: %s\n", w)
	}
	would := ""
	if ans.DryRun {
		would = "would be "
	}
	printEntryChanges(s, would, ans.Counts(), ans.Added, ans.Changed, ans.Removed)
	for _, p := range ans.Missing {
		fmt.Fprintf(s.out, "not there %s\n", p)
	}
	for _, n := range ans.NotNamed {
		fmt.Fprintf(s.out, "not there %s\n", n)
	}
	if ans.Counts() == (control.ChangeTotal{}) {
		fmt.Fprintf(s.out, "nothing to change\n")
	}
	for _, conn := range ans.CutOff {
		fmt.Fprintf(s.out, "open connection %s -> port %d: its source %sno longer let in\n", conn.Source, conn.Local.Port(), map[bool]string{true: "would be ", false: "is "}[ans.DryRun])
	}
	if !ans.ConfirmBy.IsZero() {
		fmt.Fprintf(s.out, "change %d is undone at %s unless you say: synward policy confirm\n", ans.ID, ans.ConfirmBy.Local().Format(time.TimeOnly))
	}
	printImpact(s, ans.Impact, time.Now())
	switch {
	case ans.DryRun:
		fmt.Fprintln(s.out, "dry run: nothing changed")
	case ans.Killed > 0:
		fmt.Fprintf(s.out, "%s ended\n", plural(ans.Killed, "connection", "connections"))
	case len(ans.CutOff) > 0:
		fmt.Fprintf(s.out, "%s left open (--kill ends them)\n", plural(len(ans.CutOff), "connection", "connections"))
	}
}
