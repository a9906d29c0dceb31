package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand writes the manual pages from the command line's own description,
// so that the two cannot differ. The packages are its only caller.
func manCommand(_ streams) *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "write the manual pages into a folder",
		ArgsUsage: "FOLDER",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1); err != nil {
				return err
			}
			for name, text := range manPages(c.App) {
				if err := os.WriteFile(filepath.Join(c.Args().First(), name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("write manual page: %w", err)
				}
			}
			return nil
		},
	}
}

// manPages are the pages by file name: one for synward, and one for each
// command with its subcommands.
func manPages(app *cli.App) map[string]string {
	pages := map[string]string{}
	var b strings.Builder
	roffHead(&b, "synward", app.Usage)
	b.WriteString(".SH SYNOPSIS\n.B synward\n[\\fIflags\\fR] \\fIcommand\\fR [\\fIarguments\\fR]\n.SH COMMANDS\n")
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		fmt.Fprintf(&b, ".TP\n.BR synward\\-%s (8)\n%s\n", roff(c.Name), roff(c.Usage))
		pages["synward-"+c.Name+".8"] = commandPage(c)
	}
	b.WriteString(".SH FLAGS\nThey may stand anywhere on the command line.\n")
	roffFlags(&b, app.Flags)
	b.WriteString(`.SH EXIT STATUS
0: done, also where nothing had to change. 1: failed. 2: the command line is wrong.
.SH FILES
.TP
.I /etc/synward/synward.toml
the configuration
.TP
.I /var/lib/synward/
entries, accounts, history
.TP
.I /var/spool/synward/
the relay's queue
.TP
.I /run/synward/synward.sock
the control socket: for root and members of the group synward
.TP
.I /sys/fs/bpf/synward/
the filter's pins
.SH SEE ALSO
.I /usr/share/doc/synward/
`)
	pages["synward.8"] = b.String()
	return pages
}

const relayProgram = `.SH THE PROGRAM SYNWARD\-RELAY
SMTP front, queue and delivery, as an unprivileged process in a sandbox.
.BR synward\-agent (8)
starts it and hands it its sockets; by hand there is nothing to start.
`

func commandPage(c *cli.Command) string {
	var b strings.Builder
	roffHead(&b, "synward-"+c.Name, c.Usage)
	b.WriteString(".SH SYNOPSIS\n")
	leaves := []*cli.Command{}
	for _, sub := range c.Subcommands {
		if !sub.Hidden {
			leaves = append(leaves, sub)
		}
	}
	prefix := "synward " + c.Name + " "
	if len(leaves) == 0 {
		leaves, prefix = []*cli.Command{c}, "synward "
	}
	for i, l := range leaves {
		if i > 0 {
			b.WriteString(".br\n")
		}
		fmt.Fprintf(&b, ".B %s\n[\\fIflags\\fR] %s\n", roff(prefix+l.Name), roff(l.ArgsUsage))
	}
	for _, l := range leaves {
		if l == c {
			b.WriteString(".SH DESCRIPTION\n")
		} else {
			fmt.Fprintf(&b, ".SH %s\n%s\n.PP\n", roff(strings.ToUpper(l.Name)), roff(l.Usage))
		}
		if l.Description != "" {
			fmt.Fprintf(&b, "%s\n", roff(l.Description))
		}
		roffFlags(&b, l.Flags)
	}
	if "synward-"+c.Name == relayBinary { // the relay's own program has the name of this page
		b.WriteString(relayProgram)
	}
	b.WriteString(".SH SEE ALSO\n.BR synward (8)\n")
	return b.String()
}

func roffHead(b *strings.Builder, name, usage string) {
	fmt.Fprintf(b, ".TH %s 8 \"\" synward \"System Administration\"\n.SH NAME\n%s \\- %s\n",
		strings.ToUpper(roff(name)), roff(name), roff(usage))
}

func roffFlags(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		name := "--" + f.Names()[0]
		usage := strings.ReplaceAll(doc.GetUsage(), "`", "")
		if doc.TakesValue() {
			name += " " + placeholder(doc.GetUsage())
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
	}
}

// placeholder is the word in backquotes of a flag's usage.
func placeholder(usage string) string {
	parts := strings.SplitN(usage, "`", 3)
	if len(parts) < 3 {
		return "VALUE"
	}
	return parts[1]
}

// roff escapes text: a hyphen stays one, and no line begins with a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
