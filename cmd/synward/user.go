package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay/account"
)

func userCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:        "user",
		Usage:       "the relay's accounts",
		Description: "Passwords are asked for on a terminal, or read as one line from stdin; never from arguments.",
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add an account", ArgsUsage: "NAME",
				Flags:  append(limitFlags(), dryRunFlag(), jsonFlag()),
				Action: func(c *cli.Context) error { return userAdd(c, s) },
			},
			{
				Name: "set", Usage: "change what an account may do", ArgsUsage: "NAME",
				Flags:  append(limitFlags(), dryRunFlag(), jsonFlag()),
				Action: func(c *cli.Context) error { return userSet(c, s) },
			},
			userQuotaCommand(s), userImportCommand(s),
			{
				Name: "remove", Usage: "remove an account", ArgsUsage: "NAME",
				Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return userRemove(c, s) },
			},
			{
				Name: "list", Usage: "list the accounts",
				Flags:  []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return userList(c, s) },
			},
			{
				Name: "passwd", Usage: "set a new password", ArgsUsage: "NAME",
				Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return userPasswd(c, s) },
			},
			{
				Name: "disable", Usage: "keep an account, but let nobody log in", ArgsUsage: "NAME",
				Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return userDisable(c, s, true) },
			},
			{
				Name: "enable", Usage: "undo disable", ArgsUsage: "NAME",
				Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return userDisable(c, s, false) },
			},
		},
	}
}

// shownAccount is an account without its hash.
type shownAccount struct {
	Name          string    `json:"name"`
	Disabled      bool      `json:"disabled"`
	Scram         bool      `json:"scram"`             // he may log in with SCRAM-SHA-256
	Senders       []string  `json:"senders,omitempty"` // empty = any
	Domains       []string  `json:"domains,omitempty"` // empty = any
	Denied        []string  `json:"denied_domains,omitempty"`
	MaxSize       int64     `json:"max_size,omitempty"`
	MaxRecipients int       `json:"max_recipients,omitempty"`
	Created       time.Time `json:"created,omitzero"`
}

// userName is the one argument, checked.
func userName(c *cli.Context) (string, error) {
	if err := argCount(c, 1, 1); err != nil {
		return "", err
	}
	name := c.Args().First()
	if err := account.ValidateName(name); err != nil {
		return "", usageError{err}
	}
	return name, nil
}

func userAdd(c *cli.Context, s streams) error {
	name, err := userName(c)
	if err != nil {
		return err
	}
	a := account.Account{Name: name, Created: time.Now().UTC().Truncate(time.Second)}
	if err := setLimits(c, &a); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	// Asked before the password is: nobody should type one for nothing.
	all, err := allAccounts(c, cl)
	if err != nil {
		return err
	}
	if _, _, there := findAccount(all, name); there {
		return fmt.Errorf("user %s is there already; change the password with: synward user passwd %s", name, name)
	}
	if err := setPassword(c, s, &a); err != nil {
		return err
	}
	return putAccount(c, s, cl, a, control.Header{"If-None-Match": "*"}, "added")
}

func userRemove(c *cli.Context, s streams) error {
	name, err := userName(c)
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	var ans control.AccountChange
	if c.Bool("dry-run") {
		all, err := allAccounts(c, cl)
		if err != nil {
			return err
		}
		_, _, ans.Changed = findAccount(all, name)
	} else if _, err := cl.Do(c.Context, http.MethodDelete, accountPath(name), nil, &ans, nil); err != nil {
		return err
	}
	return printAccountChange(c, s, name, "removed", ans)
}

func userPasswd(c *cli.Context, s streams) error {
	return changeUser(c, s, "changed", func(a *account.Account) (bool, error) {
		return true, setPassword(c, s, a)
	})
}

func userDisable(c *cli.Context, s streams, disabled bool) error {
	done := map[bool]string{true: "disabled", false: "enabled"}[disabled]
	return changeUser(c, s, done, func(a *account.Account) (bool, error) {
		same := a.Disabled == disabled
		a.Disabled = disabled
		return !same, nil
	})
}

// changeUser reads an account, changes it and writes it back if nobody else
// did in the meantime.
func changeUser(c *cli.Context, s streams, done string, fn func(*account.Account) (bool, error)) error {
	name, err := userName(c)
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	all, err := allAccounts(c, cl)
	if err != nil {
		return err
	}
	a, tag, there := findAccount(all, name)
	if !there {
		return fmt.Errorf("no user %s; synward user list shows them", name)
	}
	changed, err := fn(&a)
	if err != nil {
		return err
	}
	if !changed {
		return printAccountChange(c, s, name, done, control.AccountChange{})
	}
	return putAccount(c, s, cl, a, control.Header{"If-Match": tag}, done)
}

func putAccount(c *cli.Context, s streams, cl *control.Client, a account.Account, h control.Header, done string) error {
	ans := control.AccountChange{Changed: true}
	if !c.Bool("dry-run") {
		if _, err := cl.Do(c.Context, http.MethodPut, accountPath(a.Name), a, &ans, h); err != nil {
			return err
		}
	}
	return printAccountChange(c, s, a.Name, done, ans)
}

func printAccountChange(c *cli.Context, s streams, name, done string, ans control.AccountChange) error {
	if c.Bool("json") {
		return printJSON(s.out, map[string]any{"name": name, "changed": ans.Changed, "dry_run": c.Bool("dry-run"), "warning": ans.Warning})
	}
	if ans.Warning != "" {
		fmt.Fprintf(s.err, "synward: warning: %s\n", ans.Warning)
	}
	switch {
	case !ans.Changed:
		fmt.Fprintf(s.out, "user %s: nothing to change\n", name)
	case c.Bool("dry-run"):
		fmt.Fprintf(s.out, "dry run: user %s would be %s\n", name, done)
	default:
		fmt.Fprintf(s.out, "user %s %s\n", name, done)
	}
	return nil
}

func userList(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	all, err := allAccounts(c, cl)
	if err != nil {
		return err
	}
	shown := []shownAccount{}
	var rows [][]string
	for _, doc := range all {
		a, err := parseAccount(doc)
		if err != nil {
			return err
		}
		shown = append(shown, shownAccount{
			Name: a.Name, Disabled: a.Disabled, Scram: a.Scram != "", Senders: a.Senders, Created: a.Created,
			Domains: a.Domains, Denied: a.Denied, MaxSize: a.MaxSize, MaxRecipients: a.MaxRecipients,
		})
		state := "active"
		if a.Disabled {
			state = "disabled"
		}
		if a.Scram != "" {
			state += ", scram"
		}
		may := "any"
		if len(a.Senders) > 0 {
			may = strings.Join(a.Senders, ",")
		}
		rows = append(rows, []string{a.Name, state, may, limitsText(a), ago(a.Created, time.Now())})
	}
	if c.Bool("json") {
		return printJSON(s.out, map[string]any{"users": shown})
	}
	if len(rows) == 0 {
		fmt.Fprintln(s.err, "no users")
	}
	return table(s.out, []string{"NAME", "STATE", "SENDERS", "LIMITS", "CREATED"}, rows)
}

func accountPath(name string) string { return "/v1/accounts/" + url.PathEscape(name) }

func allAccounts(c *cli.Context, cl *control.Client) ([]control.Account, error) {
	var ans control.Accounts
	_, err := cl.Do(c.Context, http.MethodGet, "/v1/accounts", nil, &ans, nil)
	return ans.Accounts, err
}

func parseAccount(doc control.Account) (a account.Account, err error) {
	if err := json.Unmarshal(doc.Doc, &a); err != nil {
		return a, fmt.Errorf("read account %s: %w", doc.Name, err)
	}
	return a, nil
}

// findAccount finds an account by its name, with its tag.
func findAccount(all []control.Account, name string) (a account.Account, tag string, there bool) {
	for _, doc := range all {
		if doc.Name == name {
			a, err := parseAccount(doc)
			return a, doc.ETag, err == nil
		}
	}
	return a, "", false
}
