package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/control"
)

// The grades of a finding.
const (
	gradeOK   = "ok"
	gradeWarn = "warn"
	gradeFail = "fail"
)

// finding is one line of the doctor: what was looked at, what it is like, and
// where it is not good the command that mends it.
type finding struct {
	Check string `json:"check"`
	Grade string `json:"grade"` // ok, warn or fail
	Text  string `json:"text"`
	Mend  string `json:"mend,omitempty"`
}

func ok(check, format string, args ...any) finding {
	return finding{Check: check, Grade: gradeOK, Text: fmt.Sprintf(format, args...)}
}

func warn(check, mend, format string, args ...any) finding {
	return finding{Check: check, Grade: gradeWarn, Text: fmt.Sprintf(format, args...), Mend: mend}
}

func fail(check, mend, format string, args ...any) finding {
	return finding{Check: check, Grade: gradeFail, Text: fmt.Sprintf(format, args...), Mend: mend}
}

// patient is what the doctor examines.
type patient struct {
	root    string // where /proc and /sys stand; "" = the host's
	file    file
	status  *control.Status // nil = no agent answers
	unheard error           // and why

	features func(name string) (map[string]bool, error) // an interface's offloads; nil = ask the kernel
}

// examination is one look at a part of the patient.
type examination func(context.Context, *patient) []finding

func examinations() []examination {
	return []examination{examineKernel, examineProcess, examineInterfaces, examineEgress, examineAgent, examineCounts, examinePorts, examineRelay, examineResolvers, examineOpenRelay}
}

func doctorCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "what this host allows and lacks, and how to mend it",
		Description: "Looks at the kernel, the interfaces, the ports, the relay's certificate and spool,\n" +
			"and tries whether the relay would relay for anybody. Changes nothing.\n" +
			"Exit status 1 where a line says fail.",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			findings := examine(c.Context, c.String("config"), c.String("socket"))
			failed := 0
			for _, f := range findings {
				if f.Grade == gradeFail {
					failed++
				}
			}
			if err := printFindings(s, findings, failed, c.Bool("json")); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("doctor: %s; the lines that say fail have the command that mends it", plural(failed, "check fails", "checks fail"))
			}
			return nil
		},
	}
}

// examine goes through all that can be looked at with this configuration. A
// bad one is a finding, and the rest is looked at with the defaults.
func examine(ctx context.Context, config, socket string) []finding {
	var findings []finding
	p := &patient{}
	f, err := loadFile(config)
	if err != nil {
		findings = append(findings, fail("config", "synward --config "+config+" config check", "%s", oneLine(err)))
	} else {
		findings = append(findings, ok("config", "%s", config))
	}
	p.file = f
	if socket != "" {
		p.file.Control.Socket = socket
	}
	if st, err := control.NewClient(p.file.Control.Socket).Status(ctx); err != nil {
		p.unheard = err
	} else {
		p.status = &st
	}
	for _, look := range examinations() {
		findings = append(findings, look(ctx, p)...)
	}
	return findings
}

func printFindings(s streams, findings []finding, failed int, asJSON bool) error {
	if asJSON {
		return printJSON(s.out, map[string]any{"ok": failed == 0, "findings": findings})
	}
	var rows [][]string
	for _, f := range findings {
		rows = append(rows, []string{f.Grade, f.Check, f.Text})
		if f.Mend != "" {
			rows = append(rows, []string{"", "", "  mend: " + f.Mend})
		}
	}
	return table(s.out, nil, rows)
}

// statusRelay is what the agent says of the relay; nil where it says nothing.
func statusRelay(p *patient) *control.RelayStatus {
	if p.status == nil {
		return nil
	}
	return p.status.Relay
}
