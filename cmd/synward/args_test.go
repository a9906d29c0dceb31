package main

import (
	"io"
	"strings"
	"testing"
)

func TestReorder(t *testing.T) {
	for line, want := range map[string]string{
		"allow add 192.0.2.0/24 --dry-run":             "allow add --dry-run -- 192.0.2.0/24",
		"allow add 192.0.2.0/24 --ttl 1h 198.51.100.1": "allow add --ttl 1h -- 192.0.2.0/24 198.51.100.1",
		"allow add -- --dry-run":                       "allow add -- --dry-run",
		"allow add - --note=-x":                        "allow add --note=-x -- -",
		"allow list --socket /s --json":                "--socket /s allow list --json",
		"--config f status":                            "--config f status",
		"allow remove 192.0.2.1 --config f --kill":     "--config f allow remove --kill -- 192.0.2.1",
		"explain 192.0.2.1 -port 25":                   "explain -port 25 -- 192.0.2.1",
		"allow add add --dry-run=false":                "allow add --dry-run=false -- add",
		"queue help":                                   "queue --help",
		"explain 192.0.2.1 --help --port 25":           "explain --help --port 25",
		"":                                             "",
		"--version":                                    "--version",
	} {
		app := newApp(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
		got, err := reorder(app, append([]string{"/usr/bin/synward"}, strings.Fields(line)...))
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if s := strings.Join(got[1:], " "); s != want {
			t.Errorf("%q became %q, want %q", line, s, want)
		}
	}
	for name, line := range map[string]string{
		"bad command":        "frob",
		"bad flag":           "status --frob",
		"bad subcommand":     "allow frob",
		"flag without value": "allow add 192.0.2.1 --ttl",
		"flag as value":      "allow add --ttl --json 192.0.2.1",
		"other command's":    "deny add 192.0.2.1 --relay",
	} {
		app := newApp(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
		if got, err := reorder(app, append([]string{"synward"}, strings.Fields(line)...)); err == nil {
			t.Errorf("%s: %q became %q", name, line, got)
		}
	}
}

func TestPlainQuotesWhatTerminalsActOn(t *testing.T) {
	for in, want := range map[string]string{
		"a@example.org": "a@example.org",
		"two words":     `"two words"`,
		"\x1b[2J":       `"\x1b[2J"`,
		"line\r\nline":  `"line\r\nline"`,
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
