package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

func policyCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "the whole policy as a text file",
		Subcommands: []*cli.Command{
			{
				Name: "export", Usage: "write the operator's entries as text", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return policyExport(c, s) },
			},
			{
				Name: "diff", Usage: "what apply would change", ArgsUsage: "FILE (- reads stdin)", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return policyApply(c, s, true) },
			},
			{
				Name: "apply", Usage: "make the operator's entries those of the file, all or nothing", ArgsUsage: "FILE (- reads stdin)",
				Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return policyApply(c, s, c.Bool("dry-run")) },
			},
		},
	}
}

func policyExport(c *cli.Context, s streams) error {
	if err := argCount(c, 0, 0); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	var ans struct {
		Text string `json:"text"`
	}
	if _, err := cl.Do(c.Context, http.MethodGet, "/v1/policy", nil, &ans, nil); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(s.out, ans)
	}
	_, err = io.WriteString(s.out, ans.Text)
	return err
}

func policyApply(c *cli.Context, s streams, dryRun bool) error {
	if err := argCount(c, 1, 1); err != nil {
		return err
	}
	name := c.Args().First()
	var text []byte
	var err error
	if name == "-" {
		name = "stdin"
		text, err = io.ReadAll(s.in)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	return sendChange(c, s, "/v1/policy", control.Apply{Name: name, Text: string(text), DryRun: dryRun}, nil)
}
