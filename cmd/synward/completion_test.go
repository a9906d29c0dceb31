package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	app := newApp(streams{})
	for _, c := range []struct {
		words string // the last may be empty
		want  []string
		never string
	}{
		{"al", []string{"allow"}, "deny"},
		{"", []string{"agent", "allow", "status"}, "complete"},
		{"allow ", []string{"add", "list", "remove"}, "deny"},
		{"allow add --dr", []string{"--dry-run"}, "--json"},
		{"--config x.toml queue re", []string{"release", "retry"}, "list"},
		{"allow add --note ", nil, "add"},
		{"allow add 192.0.2.1 --pin", nil, "add"},
	} {
		got := candidates(app, strings.Split(c.words, " "))
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %v lacks %q", c.words, got, w)
			}
		}
		if slices.Contains(got, c.never) {
			t.Errorf("%q: %v has %q", c.words, got, c.never)
		}
	}
}

// script is a shell's completion script, in a file.
func script(t *testing.T, shell string) string {
	t.Helper()
	var out, err bytes.Buffer
	if code := run(context.Background(), []string{"synward", "completion", shell}, streams{out: &out, err: &err}); code != 0 {
		t.Fatal(err.String())
	}
	path := filepath.Join(t.TempDir(), shell)
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScriptsParse(t *testing.T) {
	for shell, only := range map[string]string{"bash": "-n", "zsh": "-n", "fish": "--no-execute"} {
		if msg, err := exec.Command(shell, only, script(t, shell)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, msg)
		}
	}
	var out bytes.Buffer
	if code := run(context.Background(), []string{"synward", "completion", "tcsh"}, streams{out: &out, err: &out}); code != 2 {
		t.Errorf("an unknown shell: exit status %d, want 2", code)
	}
}

// The shells ask the program, with the words as they stand, and offer its answer.
func TestScriptsAsk(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for shell, typed := range map[string]string{
		"bash": `. "$0"; COMP_WORDS=(synward allow ""); COMP_CWORD=2; _synward; printf '%s\n' "${COMPREPLY[@]}"`,
		"zsh":  `compdef() { : }; compadd() { print -rl -- ${(P)2} }; . "$0"; words=(synward allow ""); CURRENT=3; _synward`,
		"fish": `source $argv[1]; complete -C 'synward allow '`,
	} {
		cmd := exec.Command(shell, "-c", typed, script(t, shell))
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+bin)
		out, err := cmd.CombinedOutput()
		if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, []string{"add", "list", "refresh", "remove"}) {
			t.Errorf("%s, after \"synward allow \": %q, %v", shell, out, err)
		}
	}
}

// Every command that people see has a page, and every flag of it stands there.
func TestManPages(t *testing.T) {
	app := newApp(streams{})
	pages := manPages(app)
	for _, c := range app.Commands {
		page, ok := pages["synward-"+c.Name+".8"]
		if ok == c.Hidden {
			t.Errorf("%s: page %v, hidden %v", c.Name, ok, c.Hidden)
		}
		for _, sub := range c.Subcommands {
			for _, f := range sub.Flags {
				if name := f.Names()[0]; !strings.Contains(page, roff("--"+name)) {
					t.Errorf("%s %s: no --%s on its page", c.Name, sub.Name, name)
				}
			}
		}
	}
	for name, page := range pages {
		for _, line := range strings.Split(page, "\n") {
			if strings.HasPrefix(line, "'") {
				t.Errorf("%s: a line begins with a request: %q", name, line)
			}
		}
	}
}
