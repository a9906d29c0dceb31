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
		Usage: "the whole policy as a text file, and its history",
		Subcommands: append([]*cli.Command{
			{
				Name: "export", Usage: "write the operator's entries, names and feeds as text", Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error { return policyExport(c, s) },
			},
			{
				Name: "diff", Usage: "what apply would change", ArgsUsage: "FILE (- reads stdin)", Flags: []cli.Flag{yesFlag(), jsonFlag()},
				Action: func(c *cli.Context) error { return policyApply(c, s, true) },
			},
			{
				Name: "apply", Usage: "make the operator's entries, names and feeds those of the file, all or nothing", ArgsUsage: "FILE (- reads stdin)",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "confirm", Usage: "undo it after `TIME` (2m) unless synward policy confirm comes"},
					noteFlag(), killFlag(), yesFlag(), dryRunFlag(), jsonFlag(),
				},
				Action: func(c *cli.Context) error { return policyApply(c, s, c.Bool("dry-run")) },
			},
		}, append(historyCommands(s), importCommand(s))...),
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
	name, text, err := readFile(c.Args().First(), s.in)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	req := control.Apply{Name: name, Text: string(text), Why: c.String("note"), Confirm: c.String("confirm"), Yes: c.Bool("yes"), DryRun: dryRun, Kill: c.Bool("kill")}
	return sendChange(c, s, "/v1/policy", req, nil)
}

// readFile reads a file, or for "-" stdin, and returns its name for messages.
func readFile(path string, in io.Reader) (name string, data []byte, err error) {
	if path == "-" {
		data, err = io.ReadAll(in)
		return "stdin", data, err
	}
	data, err = os.ReadFile(path)
	return path, data, err
}
