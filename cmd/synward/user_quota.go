package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/quota"
)

// quotaPath is where the agent hands on to the relay's quotas.
const quotaPath = "/v1/relay/quota"

func userQuotaCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "quota", Usage: "show, set or reset what a user may send", ArgsUsage: "NAME",
		Description: "--set takes messages-per-hour=N, messages-per-day=N, recipients-per-hour=N and\n" +
			"recipients-per-day=N, separated by commas (0 = no limit; what is not named stays),\n" +
			"none (no limit at all), or default (the configuration's relay.quota.user).",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "set", Usage: "the user's own `LIMITS`"},
			&cli.BoolFlag{Name: "reset", Usage: "forget what the user has sent, so that he may send at once"},
			dryRunFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error { return userQuota(c, s) },
	}
}

func userQuota(c *cli.Context, s streams) error {
	name, err := userName(c)
	if err != nil {
		return err
	}
	if c.IsSet("set") {
		err := changeUser(c, s, "given another quota", func(a *account.Account) (bool, error) {
			q, err := parseQuota(c.String("set"), a.Quota)
			same := reflect.DeepEqual(q, a.Quota)
			a.Quota = q
			return !same, err
		})
		if err != nil || !c.Bool("reset") {
			return err
		}
	}
	if c.Bool("reset") {
		return resetQuota(c, s, "user", name)
	}
	return showQuotas(c, s, url.Values{"user": {name}})
}

// parseQuota reads LIMITS onto what an account has now. nil is the default.
func parseQuota(text string, now *quota.Limits) (*quota.Limits, error) {
	switch text {
	case "default":
		return nil, nil
	case "none":
		return &quota.Limits{}, nil
	}
	l := quota.Limits{}
	if now != nil {
		l = *now
	}
	fields := map[string]*int{
		"messages-per-hour": &l.MessagesPerHour, "messages-per-day": &l.MessagesPerDay,
		"recipients-per-hour": &l.RecipientsPerHour, "recipients-per-day": &l.RecipientsPerDay,
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(value)
		if fields[key] == nil || err != nil {
			return nil, usagef("--set: %q is not like messages-per-hour=100 or recipients-per-day=5000 (or none, or default)", part)
		}
		*fields[key] = n
	}
	if err := l.Validate(); err != nil {
		return nil, usagef("--set: %v", err)
	}
	return &l, nil
}

// resetQuota has the relay forget what a user or a source has sent.
func resetQuota(c *cli.Context, s streams, kind, name string) error {
	q := url.Values{kind: {name}}
	method, path := http.MethodPost, quotaPath+"/reset?"
	if c.Bool("dry-run") {
		method, path = http.MethodGet, quotaPath+"?"
	}
	if _, err := ask(c, method, path+q.Encode()); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, map[string]any{kind: name, "reset": !c.Bool("dry-run"), "dry_run": c.Bool("dry-run")})
	}
	would := ""
	if c.Bool("dry-run") {
		would = "dry run: would be "
	}
	fmt.Fprintf(s.out, "%sreset: the quota of %s %s\n", would, kind, name)
	return nil
}

// shownQuota is a quota as the relay tells it.
type shownQuota struct {
	User   string       `json:"user,omitempty"`
	Source string       `json:"source,omitempty"`
	Limits quota.Limits `json:"limits"`
	Used   quota.Usage  `json:"used"`
	Over   string       `json:"over,omitempty"`
	Until  *time.Time   `json:"until,omitempty"`
}

func showQuotas(c *cli.Context, s streams, q url.Values) error {
	raw, err := ask(c, http.MethodGet, quotaPath+"?"+q.Encode())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, raw)
	}
	var ans struct {
		Quotas []shownQuota `json:"quotas"`
	}
	if err := json.Unmarshal(raw, &ans); err != nil {
		return fmt.Errorf("read the relay's answer: %w", err)
	}
	if len(ans.Quotas) == 0 {
		fmt.Fprintln(s.err, "nobody has sent anything within a day")
	}
	var rows [][]string
	for _, v := range ans.Quotas {
		who, state := "user "+v.User, "-"
		if v.Source != "" {
			who = "source " + strings.TrimSuffix(v.Source, "/32")
		}
		if v.Over != "" && v.Until != nil {
			state = "used up until " + v.Until.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{
			who, ofLimit(v.Used.MessagesHour, v.Limits.MessagesPerHour), ofLimit(v.Used.MessagesDay, v.Limits.MessagesPerDay),
			ofLimit(v.Used.RecipientsHour, v.Limits.RecipientsPerHour), ofLimit(v.Used.RecipientsDay, v.Limits.RecipientsPerDay), state,
		})
	}
	return table(s.out, []string{"WHO", "MESSAGES/HOUR", "MESSAGES/DAY", "RECIPIENTS/HOUR", "RECIPIENTS/DAY", "STATE"}, rows)
}

func ofLimit(used, limit int) string {
	if limit == 0 {
		return strconv.Itoa(used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

func relayQuotaCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "quota", Usage: "what users and relaying sources have sent, and may",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "source", Usage: "only the relaying source `ADDRESS`"},
			&cli.BoolFlag{Name: "reset", Usage: "with --source: forget what it has sent"},
			dryRunFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			q := url.Values{}
			if c.IsSet("source") {
				q.Set("source", c.String("source"))
			}
			if !c.Bool("reset") {
				return showQuotas(c, s, q)
			}
			if !c.IsSet("source") {
				return usagef("relay quota --reset: say which --source; a user's is reset with synward user quota NAME --reset")
			}
			return resetQuota(c, s, "source", c.String("source"))
		},
	}
}
