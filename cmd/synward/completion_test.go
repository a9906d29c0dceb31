package main

import (
	"bytes"
	"context"
	"os/exec"
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

func TestBashScriptParses(t *testing.T) {
	var out bytes.Buffer
	if code := run(context.Background(), []string{"synward", "completion", "bash"}, streams{out: &out, err: &out}); code != 0 {
		t.Fatal(out.String())
	}
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = &out
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, msg)
	}
	if code := run(context.Background(), []string{"synward", "completion", "tcsh"}, streams{out: &out, err: &out}); code != 2 {
		t.Errorf("an unknown shell: exit status %d, want 2", code)
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
