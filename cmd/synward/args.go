package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder brings a command line into the one order that the cli package reads
// right: flags before arguments. Left alone it takes a flag that stands after
// an argument for an argument, without a word, and "allow add 192.0.2.0/24
// --dry-run" would apply. Global flags may stand anywhere too. A flag that the
// command does not have is an error; after "--" nothing is a flag.
func reorder(app *cli.App, args []string) ([]string, error) {
	r := reordering{app: app, commands: app.Commands, flags: app.Flags}
	rest := args[min(1, len(args)):]
	for len(rest) > 0 {
		tok := rest[0]
		rest = rest[1:]
		switch {
		case tok == "--":
			r.args = append(r.args, rest...)
			rest = nil
		case tok != "-" && strings.HasPrefix(tok, "-"):
			n, err := r.flag(tok, rest)
			if err != nil {
				return nil, err
			}
			rest = rest[n:]
		default:
			if err := r.word(tok); err != nil {
				return nil, err
			}
		}
	}
	if r.help {
		r.args = nil // what they are is being asked; the cli package would look for a topic of that name
	}
	out := append([]string{app.Name}, r.global...)
	out = append(out, r.path...)
	out = append(out, r.local...)
	if len(r.args) > 0 && len(r.path) > 0 {
		out = append(out, "--")
	}
	return append(out, r.args...), nil
}

// reordering is the walk along a command line.
type reordering struct {
	app      *cli.App
	commands []*cli.Command // that may come next
	flags    []cli.Flag     // of the command so far
	path     []string       // the command
	global   []string
	local    []string
	args     []string
	help     bool
}

// word takes a token that is no flag: the next command, or an argument.
func (r *reordering) word(tok string) error {
	if len(r.commands) == 0 || len(r.args) > 0 {
		r.args = append(r.args, tok)
		return nil
	}
	i := slices.IndexFunc(r.commands, func(c *cli.Command) bool { return c.HasName(tok) })
	if i < 0 {
		if tok == "help" {
			r.local = append(r.local, "--help")
			return nil
		}
		return usagef("no command %q; synward %s lists them", strings.Join(append(r.path, tok), " "), strings.Join(append(r.path, "--help"), " "))
	}
	if len(r.local) > 0 {
		return usagef("flag %s stands before its command %q", r.local[0], tok)
	}
	c := r.commands[i]
	r.path = append(r.path, c.Name)
	r.commands, r.flags = c.Subcommands, c.Flags
	return nil
}

// flag takes a flag, and returns how many of the following tokens are its value.
func (r *reordering) flag(tok string, rest []string) (int, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(tok, "-"), "=")
	to := &r.local
	if len(r.path) == 0 {
		to = &r.global
	}
	f := find(r.flags, name)
	if f == nil {
		f, to = find(r.app.Flags, name), &r.global
	}
	if f == nil && isBuiltin(name, len(r.path) == 0) {
		to, hasValue = &r.local, true
		r.help = r.help || name[0] == 'h'
	} else if f == nil {
		where := strings.Join(append([]string{"synward"}, r.path...), " ")
		return 0, usagef("no flag %s; %s --help lists them", tok, where)
	}
	*to = append(*to, tok)
	if _, isBool := f.(*cli.BoolFlag); isBool || hasValue {
		return 0, nil
	}
	if len(rest) == 0 {
		return 0, usagef("flag %s needs a value", tok)
	}
	if rest[0] != "-" && strings.HasPrefix(rest[0], "-") {
		return 0, usagef("flag %s needs a value, not the flag %s; write %s=%s if it is one", tok, rest[0], tok, rest[0])
	}
	*to = append(*to, rest[0])
	return 1, nil
}

// isBuiltin says whether the cli package itself has the flag.
func isBuiltin(name string, top bool) bool {
	return name == "help" || name == "h" || top && (name == "version" || name == "v")
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// argCount says what is missing where a command has fewer arguments than n, and
// what is too much above most (-1 = no limit).
func argCount(c *cli.Context, n, most int) error {
	switch {
	case c.NArg() < n:
		return usagef("%s missing; write: %s %s", firstWord(c.Command.ArgsUsage), c.Command.HelpName, c.Command.ArgsUsage)
	case most >= 0 && c.NArg() > most:
		return usagef("unexpected argument %q; %s --help says what it takes", c.Args().Get(most), c.Command.HelpName)
	}
	return nil
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if word == "" {
		return "argument"
	}
	return fmt.Sprintf("%s is", strings.TrimRight(word, "…"))
}
