package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/cmd/version"
)

// streams are what a command reads and writes, so that one is tested without a
// process.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a wrong command line: exit status 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	app := newApp(s)
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, ordered)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(s.err, "synward: %s\n", oneLine(err))
	return exitStatus(err)
}

// oneLine is the error as its one line, whatever has been joined in it.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// exitStatus is 2 where the command line is wrong, by our or the agent's
// judgement, else 1.
func exitStatus(err error) int {
	var usage usageError
	var refused *control.Error
	if errors.As(err, &usage) || errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
		return 2
	}
	return 1
}

func newApp(s streams) *cli.App {
	app := &cli.App{
		Name:            "synward",
		Usage:           "keep strangers off the SMTP ports, at the network card",
		Version:         version.String(),
		HideHelpCommand: true,
		Reader:          s.in,
		Writer:          s.out,
		ErrWriter:       s.err,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE`", Value: agent.DefaultConfigFile},
			&cli.StringFlag{Name: "socket", Usage: "control socket `PATH` (default: the configuration's)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("no command %q; synward --help lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			agentCommand(s), entryCommand(s, "allow"), entryCommand(s, "deny"), feedCommand(s),
			explainCommand(s), statusCommand(s), topCommand(s), eventsCommand(s), sourcesCommand(s), policyCommand(s), learnCommand(s), reviewCommand(s),
			userCommand(s), dkimCommand(s), queueCommand(s), relayCommand(s), configCommand(s), unloadCommand(s),
			doctorCommand(s), completionCommand(s), completeCommand(s), manCommand(s),
		},
	}
	for _, c := range app.Commands {
		strict(c)
	}
	return app
}

// strict gives every command the same manners: usage errors are ours, and a
// group of commands that is called without one says which there are.
func strict(c *cli.Command) {
	c.HideHelpCommand = true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	if len(c.Subcommands) == 0 {
		return
	}
	var names []string
	for _, sub := range c.Subcommands {
		names = append(names, sub.Name)
		strict(sub)
	}
	group := c.Name
	c.Action = func(*cli.Context) error {
		return usagef("%s: say what to do: %s", group, strings.Join(names, ", "))
	}
}

// client is for the agent that the flags or the configuration name.
func client(c *cli.Context) (*control.Client, error) {
	p, err := places(c)
	if err != nil {
		return nil, err
	}
	return control.NewClient(p.Control.Socket), nil
}

// isTerminal says whether a stream is a person's terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
