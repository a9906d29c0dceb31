package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/policy/imports"
)

func importCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "add the entries of a list that another program has", ArgsUsage: "FILE (- reads stdin)",
		Description: "Formats: " + imports.Formats + ".\npostfix takes mynetworks and CIDR tables, nft and ipset their dumps (nft list set, ipset save).\nAll or nothing: a bad line is named with line and column, and nothing is changed.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Usage: "the `FORMAT` of the file: " + imports.Formats, Value: "plain"},
			&cli.StringFlag{Name: "action", Usage: "`ACTION` where the file says none: allow or deny", Value: "allow"},
			&cli.StringFlag{Name: "ports", Usage: "on these `PORTS` only, where the file says none"},
			&cli.StringFlag{Name: "note", Usage: "`TEXT` for people, where the file says none, and for history"},
			dryRunFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error { return policyImport(c, s) },
	}
}

func policyImport(c *cli.Context, s streams) error {
	if err := argCount(c, 1, 1); err != nil {
		return err
	}
	action := policy.Action(c.String("action"))
	if action != policy.Allow && action != policy.Deny {
		return usagef("--action %q: write allow or deny", action)
	}
	var ports []uint16
	if c.IsSet("ports") {
		var err error
		if ports, err = policy.ParsePorts(c.String("ports"), nil); err != nil {
			return usagef("--ports: %w", err)
		}
	}
	name, data, err := readFile(c.Args().First(), s.in)
	if err != nil {
		return fmt.Errorf("read list: %w", err)
	}
	list, done := watched(s.err, bytes.NewReader(data), int64(len(data)), "reading "+name)
	entries, warnings, err := imports.Read(list, imports.Options{Name: name, Format: c.String("format"), Action: action, Now: time.Now()})
	done()
	if err != nil {
		return usagef("%w; nothing changed", err)
	}
	if len(entries) == 0 {
		return usagef("%s: no entry in it; is --format %s right?", name, c.String("format"))
	}
	for i := range entries {
		if len(entries[i].Ports) == 0 {
			entries[i].Ports = ports
		}
		if entries[i].Note == "" {
			entries[i].Note = c.String("note")
		}
	}
	req := control.Add{Entries: entries, Command: "policy import", Why: c.String("note"), DryRun: c.Bool("dry-run")}
	return sendChange(c, s, "/v1/entries", req, warnings)
}
