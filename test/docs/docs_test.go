// Package docs runs every command of docs/operator on a real agent: a page
// whose commands do not work does not land.
package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/synward/synward/test/stage"
	"github.com/synward/synward/test/terminal"
)

// block is a fenced block of commands. One that says "stopped" is for a host
// whose agent is stopped.
type block struct {
	line     int
	stopped  bool
	commands []string
}

// blocks are the console blocks of a page.
func blocks(text string) []block {
	var out []block
	inside := false
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && inside:
			inside = false
		case fence && strings.HasPrefix(info, "console"):
			inside = true
			out = append(out, block{line: n + 1, stopped: strings.HasSuffix(info, " stopped")})
		case inside:
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				last := &out[len(out)-1]
				last.commands = append(last.commands, c)
			}
		}
	}
	return out
}

// words splits a command at blanks, but not inside double quotes.
func words(command string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(command, -1) {
		out = append(out, strings.Trim(w, `"`))
	}
	return out
}

// build makes the two programs, in a folder that goes with the test.
func build(t *testing.T) string {
	t.Helper()
	bin, err := os.MkdirTemp("/var/tmp", "synward-docs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	if err := os.Chmod(bin, 0o755); err != nil { // the relay's user has to get at its program
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", bin+"/", "../../cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func TestEveryCommandOfThePages(t *testing.T) {
	bin := build(t)
	s := stage.New(t, bin, "")
	s.StartAgent()
	shell := makeShell(t, s, bin)
	pages, err := filepath.Glob("../../docs/operator/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	ran := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(string(text)) {
			ran += play(t, s, shell, fmt.Sprintf("%s:%d", filepath.Base(page), b.line), b)
		}
	}
	if ran < 30 {
		t.Errorf("%d commands were found, which is too few", ran)
	}
}

// makeShell makes the folder in which the commands run, with what stands in it
// for the host's synward, and for ssh to other edges, which are all this one.
func makeShell(t *testing.T, s *stage.Stage, bin string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"synward": fmt.Sprintf("exec nsenter --net=/run/netns/%s %s/synward --config %s \"$@\"", s.Edge.Name, bin, s.Config()),
		"ssh":     `shift; exec sh -c "$*"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// play runs a block's commands and returns how many.
func play(t *testing.T, s *stage.Stage, shell, where string, b block) int {
	t.Helper()
	if b.stopped {
		if err := s.EndAgent(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		defer s.StartAgent()
	}
	for _, c := range b.commands {
		if args := words(c); len(args) > 1 && args[1] == "top" {
			watch(t, s, args[1:])
			continue
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", c)
		cmd.Dir = shell
		cmd.Env = append(os.Environ(), "PATH="+shell+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", where, c, err, out)
		}
	}
	return len(b.commands)
}

// watch runs the live view on a terminal until it shows the filter, then ends it.
func watch(t *testing.T, s *stage.Stage, args []string) {
	t.Helper()
	x := terminal.New(t, 80, 24)
	cmd := s.Command(t.Context(), args...)
	x.Start(cmd)
	x.AwaitText("loaded, enforcing")
	x.AwaitText("queue")
	x.Type("q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("synward %s: %v\n%s", strings.Join(args, " "), err, x.Raw())
	}
}
