package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/synward/synward/relay/account"
)

// hashedPassword asks for a password and returns its hash. With --dry-run it
// asks nothing.
func hashedPassword(c *cli.Context, s streams, name string) (string, error) {
	if c.Bool("dry-run") {
		return "", nil
	}
	pw, err := readPassword(s, name)
	if err != nil {
		return "", err
	}
	return account.Hash(pw)
}

// readPassword reads twice from a terminal without showing what is typed, or
// one line from what stdin is otherwise.
func readPassword(s streams, name string) (string, error) {
	if isTerminal(s.in) {
		return askPassword(s, name, int(s.in.(*os.File).Fd()))
	}
	line, err := bufio.NewReader(io.LimitReader(s.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password from stdin: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("no password: give it as one line on stdin, or run the command on a terminal")
	}
	return line, nil
}

func askPassword(s streams, name string, fd int) (string, error) {
	var typed [2]string
	for i, prompt := range []string{"Password for " + name + ": ", "Again: "} {
		fmt.Fprint(s.err, prompt)
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(s.err)
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
		typed[i] = string(b)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ; nothing changed")
	}
	return typed[0], nil
}
