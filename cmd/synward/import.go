package main

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
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
	bar := progress(s.err, int64(len(data)), "reading "+name)
	reader := progressbar.NewReader(bytes.NewReader(data), bar)
	entries, warnings, err := imports.Read(&reader, imports.Options{Name: name, Format: c.String("format"), Action: action})
	bar.Finish()
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
	done := spin(s.err, fmt.Sprintf("bringing %d entries in force", len(entries)))
	defer done()
	req := control.Add{Entries: entries, Command: "policy import", Why: c.String("note"), DryRun: c.Bool("dry-run")}
	return sendChange(c, streams{in: s.in, out: afterwards{s.out, done}, err: afterwards{s.err, done}}, "/v1/entries", req, warnings)
}

// progress is a bar on a terminal, and nothing elsewhere.
func progress(w io.Writer, total int64, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetVisibility(isTerminal(w)), progressbar.OptionSetSpinnerChangeInterval(0)) // 0: no goroutine of its own, which races
}

// spin shows that something is under way, of which nobody knows how long it
// takes, until done is called.
func spin(w io.Writer, what string) (done func()) {
	bar := progress(w, -1, what)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				bar.Finish()
				return
			case <-tick.C:
				bar.Add(1)
			}
		}
	}()
	ended := false
	return func() {
		if !ended {
			ended = true
			close(stop)
			<-stopped
		}
	}
}

// afterwards ends what is under way before the first word is written.
type afterwards struct {
	io.Writer
	done func()
}

// Write writes through.
func (w afterwards) Write(b []byte) (int, error) {
	w.done()
	return w.Writer.Write(b)
}
