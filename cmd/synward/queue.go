package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// queuePath is where the agent hands on to the relay's queue.
const queuePath = "/v1/relay/queue"

func queueCommand(s streams) *cli.Command {
	change := func(name, done, usage string) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, ArgsUsage: "ID… (or all)",
			Description: "With all, the filters say which items; without one it is every item.",
			Flags:       append(queueFilters(), dryRunFlag(), jsonFlag()),
			Action:      func(c *cli.Context) error { return queueChange(c, s, name, done) },
		}
	}
	return &cli.Command{
		Name:  "queue",
		Usage: "the relay's queue",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the items", Flags: append(queueFilters(), jsonFlag()),
				Action: func(c *cli.Context) error { return queueList(c, s) },
			},
			{
				Name: "show", Usage: "show one item", ArgsUsage: "ID", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return queueShow(c, s) },
			},
			change("retry", "retried", "try items again now"),
			change("hold", "held", "keep items from being tried until release"),
			change("release", "released", "end hold, and try the items now"),
			change("delete", "deleted", "delete items; nobody is told"),
		},
	}
}

// queueFilters pick items; all that are given must fit.
func queueFilters() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "older", Usage: "only items that have waited longer than `TIME`, such as 90m or 2d"},
		&cli.StringFlag{Name: "sender", Usage: "only from `ADDRESS` or domain; <> is the null sender"},
		&cli.StringFlag{Name: "recipient", Usage: "only with a waiting recipient `ADDRESS` or domain"},
		&cli.StringFlag{Name: "next-hop", Usage: "only what goes to `HOST`, host:port, or by MX to that domain"},
		&cli.BoolFlag{Name: "held", Usage: "only held items"},
	}
}

// queueQuery is the filters as the relay reads them.
func queueQuery(c *cli.Context) (url.Values, error) {
	q := url.Values{}
	for _, name := range []string{"sender", "recipient", "next-hop"} {
		if c.IsSet(name) {
			q.Set(strings.ReplaceAll(name, "-", "_"), c.String(name))
		}
	}
	if c.IsSet("older") {
		d, err := policy.ParseTTL(c.String("older"))
		if err != nil {
			return nil, usagef("--older: %v", err)
		}
		q.Set("older", d.String())
	}
	if c.Bool("held") {
		q.Set("held", "1")
	}
	return q, nil
}

// queueItem is what people see of an item.
type queueItem struct {
	ID       string    `json:"id"`
	From     string    `json:"from"`
	Rcpts    []rcpt    `json:"rcpts"`
	Size     int64     `json:"size"`
	Received time.Time `json:"received"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	LastErr  string    `json:"last_error"`
	Held     bool      `json:"held"`
	NextHops []string  `json:"next_hops"`
}

type rcpt struct {
	Addr string `json:"addr"`
}

// ask sends a request to the relay and returns its answer as it is.
func ask(c *cli.Context, method, path string) (json.RawMessage, error) {
	cl, err := client(c)
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	_, err = cl.Do(c.Context, method, path, nil, &raw, nil)
	return raw, err
}

func queueList(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	q, err := queueQuery(c)
	if err != nil {
		return err
	}
	raw, err := ask(c, http.MethodGet, queuePath+"?"+q.Encode())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, raw)
	}
	var items []queueItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return fmt.Errorf("read the relay's answer: %w", err)
	}
	if len(items) == 0 {
		fmt.Fprintln(s.err, map[bool]string{true: "the queue is empty", false: "no such item in the queue"}[len(q) == 0])
	}
	now := time.Now()
	var rows [][]string
	for _, i := range items {
		next := ago(i.Next, now)
		if i.Held {
			next = "held"
		}
		rows = append(rows, []string{
			i.ID, ago(i.Received, now), strconv.FormatInt(i.Size, 10), strconv.Itoa(i.Attempts), next,
			nullSender(i.From), plain(recipients(i.Rcpts)), plain(firstOf(i.NextHops)), plain(i.LastErr),
		})
	}
	return table(s.out, []string{"ID", "RECEIVED", "BYTES", "TRIES", "NEXT", "FROM", "TO", "NEXT HOP", "LAST ERROR"}, rows)
}

func nullSender(from string) string {
	if from == "" {
		return "<>"
	}
	return plain(from)
}

func recipients(rs []rcpt) string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = r.Addr
	}
	return firstOf(names)
}

// firstOf is the first of a list, and how many more there are.
func firstOf(list []string) string {
	switch len(list) {
	case 0:
		return "-"
	case 1:
		return list[0]
	}
	return fmt.Sprintf("%s +%d", list[0], len(list)-1)
}

func queueShow(c *cli.Context, s streams) error {
	if err := argCount(c, 1, 1); err != nil {
		return err
	}
	raw, err := ask(c, http.MethodGet, queuePath+"/"+url.PathEscape(c.Args().First()))
	if err != nil {
		return err
	}
	// For people too: an item has many parts, and JSON names them all.
	return printJSON(s.out, raw)
}

// queueChange does verb to the items that are named, or with "all" to those
// that the filters pick.
func queueChange(c *cli.Context, s streams, verb, done string) error {
	if err := argCount(c, 1, -1); err != nil {
		return err
	}
	query, err := queueQuery(c)
	if err != nil {
		return err
	}
	ids := c.Args().Slice()
	all := len(ids) == 1 && ids[0] == "all"
	if len(query) > 0 && !all {
		return usagef("queue %s: filters go with all, not with ids", verb)
	}
	dry := c.Bool("dry-run")
	var changed, missing []string
	if dry || !all { // one bad id among many, and nothing changes
		if changed, missing, err = askChange(c, verb, ids, query, true); err != nil {
			return err
		}
	}
	if !dry {
		if changed, missing, err = askChange(c, verb, ids, query, false); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(s.out, queueChanged(done, changed, missing, dry))
	}
	for _, id := range missing {
		fmt.Fprintf(s.out, "not there %s\n", id)
	}
	if len(changed) == 0 && len(missing) > 0 {
		return nil
	}
	would := ""
	if dry {
		would = "dry run: would be "
	}
	text := strings.Join(changed, ", ")
	if len(changed) != 1 && (all || len(changed) == 0) {
		text = plural(len(changed), "item", "items")
	}
	fmt.Fprintf(s.out, "%s%s: %s\n", would, done, text)
	return nil
}

func queueChanged(done string, changed, missing []string, dry bool) map[string]any {
	ans := map[string]any{done: changed, "dry_run": dry}
	if len(missing) > 0 {
		ans["missing"] = missing
	}
	return ans
}

// askChange has the relay do verb, and returns the ids of the items. What is to
// be deleted and is not there, as it has just been delivered, is no error.
func askChange(c *cli.Context, verb string, ids []string, query url.Values, dry bool) (changed, missing []string, err error) {
	query.Set("dry_run", map[bool]string{true: "1", false: "0"}[dry])
	method, suffix := http.MethodPost, "/"+verb
	if verb == "delete" {
		method, suffix = http.MethodDelete, ""
	}
	changed = []string{}
	for _, id := range ids {
		raw, err := ask(c, method, queuePath+"/"+url.PathEscape(id)+suffix+"?"+query.Encode())
		if verb == "delete" && control.StatusOf(err) == http.StatusNotFound {
			missing = append(missing, id)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		var ans struct {
			Items []string `json:"items"`
		}
		if err := json.Unmarshal(raw, &ans); err != nil {
			return nil, nil, fmt.Errorf("read the relay's answer: %w", err)
		}
		changed = append(changed, ans.Items...)
	}
	return changed, missing, nil
}
