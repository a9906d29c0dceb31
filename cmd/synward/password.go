package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/synward/synward/relay/account"
)

// setPassword asks for a password and gives the account what is kept of it: the
// hash, and a SCRAM credential where the relay is to offer SCRAM. With --dry-run
// it asks nothing.
func setPassword(c *cli.Context, s streams, a *account.Account) error {
	if c.Bool("dry-run") {
		return nil
	}
	pw, err := readPassword(s, a.Name)
	if err != nil {
		return err
	}
	if a.Hash, err = account.Hash(pw); err != nil {
		return err
	}
	if a.Scram = ""; !keepsScram(c, s) {
		return nil
	}
	a.Scram, err = account.Scram(pw)
	return err
}

// keepsScram says whether the configuration wants credentials for SCRAM.
func keepsScram(c *cli.Context, s streams) bool {
	f, err := loadFile(c.String("config"))
	if errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(s.err, "synward: warning: %s cannot be read: no SCRAM credential is stored; as root it would be, where relay.scram is set\n", c.String("config"))
	}
	return err == nil && f.Relay.Scram
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
