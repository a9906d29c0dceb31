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
)

// queuePath is where the agent hands on to the relay's queue.
const queuePath = "/v1/relay/queue"

func queueCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "queue",
		Usage: "the relay's queue",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the items", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return queueList(c, s) },
			},
			{
				Name: "show", Usage: "show one item", ArgsUsage: "ID", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return queueShow(c, s) },
			},
			{
				Name: "retry", Usage: "try items again now", ArgsUsage: "ID… (or all)", Flags: []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return queueRetry(c, s) },
			},
		},
	}
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
}

// rcpt is a recipient, as a string or as an object with an address.
type rcpt string

// UnmarshalJSON reads either form.
func (r *rcpt) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*r = rcpt(text)
		return nil
	}
	var obj struct {
		Addr string `json:"addr"`
	}
	err := json.Unmarshal(b, &obj)
	*r = rcpt(obj.Addr)
	return err
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
	raw, err := ask(c, http.MethodGet, queuePath)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, raw)
	}
	items, err := queueItems(raw)
	if err != nil {
		return fmt.Errorf("read the relay's answer: %w", err)
	}
	if len(items) == 0 {
		fmt.Fprintln(s.err, "the queue is empty")
	}
	now := time.Now()
	var rows [][]string
	for _, i := range items {
		next := ago(i.Next, now)
		if i.Held {
			next = "held"
		}
		rows = append(rows, []string{i.ID, ago(i.Received, now), strconv.FormatInt(i.Size, 10), strconv.Itoa(i.Attempts), next, plain(i.From), plain(recipients(i.Rcpts)), plain(i.LastErr)})
	}
	return table(s.out, []string{"ID", "RECEIVED", "BYTES", "TRIES", "NEXT", "FROM", "TO", "LAST ERROR"}, rows)
}

// queueItems reads a list, bare or under "items".
func queueItems(raw json.RawMessage) ([]queueItem, error) {
	var items []queueItem
	if json.Unmarshal(raw, &items) == nil {
		return items, nil
	}
	var wrapped struct {
		Items []queueItem `json:"items"`
	}
	err := json.Unmarshal(raw, &wrapped)
	return wrapped.Items, err
}

func recipients(rs []rcpt) string {
	if len(rs) == 0 {
		return ""
	}
	if len(rs) == 1 {
		return string(rs[0])
	}
	return fmt.Sprintf("%s +%d", rs[0], len(rs)-1)
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

func queueRetry(c *cli.Context, s streams) error {
	if err := argCount(c, 1, -1); err != nil {
		return err
	}
	ids := c.Args().Slice()
	for _, id := range ids {
		if c.Bool("dry-run") {
			if id == "all" {
				continue
			}
			if _, err := ask(c, http.MethodGet, queuePath+"/"+url.PathEscape(id)); err != nil {
				return err
			}
			continue
		}
		if _, err := ask(c, http.MethodPost, queuePath+"/"+url.PathEscape(id)+"/retry"); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(s.out, map[string]any{"retried": ids, "dry_run": c.Bool("dry-run")})
	}
	would := ""
	if c.Bool("dry-run") {
		would = "dry run: would be "
	}
	fmt.Fprintf(s.out, "%stried again now: %s\n", would, strings.Join(ids, ", "))
	return nil
}
