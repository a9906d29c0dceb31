package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay/account"
)

func userImportCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "add the accounts of an htpasswd file (bcrypt, argon2)", ArgsUsage: "FILE (or -)",
		Description: "All are imported at once, or none where a line is bad or the relay refuses one. An account that is there already stays as\nit is; with --replace it takes the file's password and keeps all else.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "replace", Usage: "take the passwords of accounts that are there already from the file"},
			dryRunFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error { return userImport(c, s) },
	}
}

// imported is what an import has done.
type imported struct {
	Added    []string `json:"added"`
	Replaced []string `json:"replaced"`
	Kept     []string `json:"kept"` // there already
	DryRun   bool     `json:"dry_run"`
	Warning  string   `json:"warning,omitempty"`
}

func userImport(c *cli.Context, s streams) error {
	if err := argCount(c, 1, 1); err != nil {
		return err
	}
	accounts, err := readAccounts(s, c.Args().First())
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	there, err := allAccounts(c, cl)
	if err != nil {
		return err
	}
	done := imported{Added: []string{}, Replaced: []string{}, Kept: []string{}, DryRun: c.Bool("dry-run")}
	var put control.Accounts
	for _, a := range accounts {
		old, tag, known := findAccount(there, a.Name)
		list := &done.Added
		switch {
		case known && (!c.Bool("replace") || old.Hash == a.Hash):
			done.Kept = append(done.Kept, a.Name)
			continue
		case known:
			old.Hash, old.Scram = a.Hash, "" // it is of the old password
			a, list = old, &done.Replaced
		default:
			a.Created = time.Now().UTC().Truncate(time.Second)
		}
		*list = append(*list, a.Name)
		doc, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("write account %s: %w", a.Name, err)
		}
		put.Accounts = append(put.Accounts, control.Account{Name: a.Name, ETag: tag, Doc: doc})
	}
	if !done.DryRun && len(put.Accounts) > 0 {
		var ans control.AccountChange
		if _, err := cl.Do(c.Context, http.MethodPost, "/v1/accounts", put, &ans, nil); err != nil {
			return fmt.Errorf("import users: %w", err)
		}
		done.Warning = ans.Warning
	}
	return printImported(c, s, done)
}

func readAccounts(s streams, path string) ([]account.Account, error) {
	in := s.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func(f io.Closer) { _ = f.Close() }(f) // only read
		in = f
	}
	accounts, err := account.Import(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; nothing is imported", path, err)
	}
	return accounts, nil
}

func printImported(c *cli.Context, s streams, done imported) error {
	if c.Bool("json") {
		return printJSON(s.out, done)
	}
	if done.Warning != "" {
		fmt.Fprintf(s.err, "synward: warning: %s\n", done.Warning)
	}
	would := ""
	if done.DryRun {
		would = "dry run: would be "
	}
	var parts []string
	for _, p := range []struct {
		names []string
		what  string
	}{{done.Added, "added"}, {done.Replaced, "given another password"}, {done.Kept, "kept as there already"}} {
		if len(p.names) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", plural(len(p.names), "user", "users"), p.what))
		}
	}
	if len(parts) == 0 {
		parts = []string{"no users in the file"}
	}
	fmt.Fprintf(s.out, "%s%s\n", would, strings.Join(parts, ", "))
	return nil
}
