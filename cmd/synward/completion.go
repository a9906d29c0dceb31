package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The shells' own parts. All that they know is to ask "synward complete".
var (
	//go:embed completion/synward.bash
	bashCompletion string
	//go:embed completion/synward.zsh
	zshCompletion string
	//go:embed completion/synward.fish
	fishCompletion string
)

func completionCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print the completion script of a shell",
		ArgsUsage:   "bash|zsh|fish",
		Description: "For this shell: source <(synward completion bash). The packages install it.",
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1); err != nil {
				return err
			}
			script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.Args().First()]
			if !ok {
				return usagef("completion: no script for %q; there are bash, zsh and fish", c.Args().First())
			}
			_, err := fmt.Fprint(s.out, script)
			return err
		},
	}
}

// completeCommand is what the scripts call: the words so far, the last of them
// begun or empty; it answers with what may stand there, one a line.
func completeCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:   "complete",
		Usage:  "what may stand after these words (for the shells' completion)",
		Hidden: true,
		Action: func(c *cli.Context) error {
			for _, word := range candidates(c.App, c.Args().Slice()) {
				fmt.Fprintln(s.out, word)
			}
			return nil
		},
	}
}

// candidates are the commands, or the flags, that may stand in the place of
// the last word. None at all leaves it to the shell, which offers files.
func candidates(app *cli.App, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	begun := words[len(words)-1]
	commands, flags := app.Commands, app.Flags
	atValue := false
	for _, w := range words[:len(words)-1] {
		if atValue {
			atValue = false
			continue
		}
		if strings.HasPrefix(w, "-") {
			atValue = takesValue(append(flags, app.Flags...), w)
			continue
		}
		if i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(w) }); i >= 0 {
			commands, flags = commands[i].Subcommands, commands[i].Flags
		}
	}
	if atValue {
		return nil
	}
	var out []string
	offer := func(word string) {
		if strings.HasPrefix(word, begun) && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	if strings.HasPrefix(begun, "-") {
		for _, f := range append(flags, app.Flags...) {
			for _, name := range f.Names() {
				if len(name) > 1 {
					offer("--" + name)
				}
			}
		}
		offer("--help")
	} else {
		for _, c := range commands {
			if !c.Hidden {
				offer(c.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

func takesValue(flags []cli.Flag, word string) bool {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	f := find(flags, name)
	_, isBool := f.(*cli.BoolFlag)
	return f != nil && !isBool && !hasValue
}
