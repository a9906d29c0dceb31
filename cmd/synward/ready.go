package main

import (
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

// ready is a command line of the agent's as it is to be typed here: with the
// --config and --socket that this command was given. Nothing that stands
// between quotes in it is taken for a command.
func ready(c *cli.Context, line string) string {
	name := "synward"
	for _, flag := range []string{"config", "socket"} {
		if c.IsSet(flag) {
			name += " --" + flag + "=" + quoted(c.String(flag))
		}
	}
	words := regexp.MustCompile(`'[^']*'|\\.|&& synward |^synward `)
	return words.ReplaceAllStringFunc(line, func(word string) string {
		if before, ok := strings.CutSuffix(word, "synward "); ok && word[0] != '\'' {
			return before + name + " "
		}
		return word
	})
}

// quoted is a word for the shell.
func quoted(s string) string {
	if regexp.MustCompile(`^[\w@%+=:,./-]+$`).MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
