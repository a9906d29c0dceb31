// Package docs runs the commands of docs/operator and README.md on a real agent: a
// page whose commands do not work does not land. Those that want a whole host with
// the package on it are run by test/upgrade.
package docs

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/synward/synward/test/pages"
	"github.com/synward/synward/test/stage"
	"github.com/synward/synward/test/terminal"
)

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

// operators are the pages whose every command is run.
func operators(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/operator/*.md")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d pages: %v", len(files), err)
	}
	return append(files, "../../README.md")
}

func TestEveryCommandOfThePages(t *testing.T) {
	bin := build(t)
	s := stage.New(t, bin, "")
	s.StartAgent()
	item := deferred(t, s)
	shell := makeShell(t, s, bin)
	ran := 0
	for _, needs := range []string{pages.Stage, pages.Stopped} {
		blocks, err := pages.Commands(needs, operators(t)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			ran += play(t, s, shell, named(b, item))
		}
	}
	if ran < 50 {
		t.Errorf("%d commands were found, which is too few", ran)
	}
}

// deferred puts a mail into the queue that nobody takes, and returns its ID.
func deferred(t *testing.T, s *stage.Stage) string {
	t.Helper()
	s.Sink.Down()
	for _, args := range [][]string{{"allow", "add", stage.ClientPrefix}, {"user", "add", "docs"}} {
		if out, code := s.SynwardInput("a long password\n", args...); code != 0 {
			t.Fatalf("synward %v: %s", args, out)
		}
	}
	err := s.Submit(s.Client, net.JoinHostPort(stage.EdgeForClient, "587"), stage.Letter{
		User: "docs", Password: "a long password", From: "docs@edge.example", To: "bob@hop.example", Data: "Subject: x\r\n\r\nx\r\n"})
	if err != nil {
		t.Fatal(err)
	}
	var items []struct{ ID string }
	out, _ := s.Synward("queue", "list", "--json")
	if err := json.Unmarshal([]byte(out), &items); err != nil || len(items) != 1 {
		t.Fatalf("queue list: %v: %s", err, out)
	}
	return items[0].ID
}

// named puts the item in the place of ID.
func named(b pages.Block, item string) pages.Block {
	for i, c := range b.Commands {
		b.Commands[i] = regexp.MustCompile(`\bID\b`).ReplaceAllString(c, item)
	}
	return b
}

// No command escapes: every block says what it is, and only those that are run
// hold commands.
func TestEveryBlockSaysWhatItIs(t *testing.T) {
	for _, page := range operators(t) {
		blocks, err := pages.Blocks(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			switch b.Kind {
			case "console":
				if len(b.Commands) == 0 || !slices.Contains([]string{pages.Stage, pages.Stopped, pages.Host}, b.Needs) {
					t.Errorf("%s: a block of %d commands that needs %q, which nobody runs", b.Where(), len(b.Commands), b.Needs)
				}
			case "toml", "ini", "text":
			default:
				t.Errorf("%s: the fence says %q; write console, console stopped, console host, toml, ini or text", b.Where(), b.Kind)
			}
		}
	}
}

// What the prose of any page names, and the examples of the reference show, are
// commands and flags that there are.
func TestEveryCommandThatIsNamedExists(t *testing.T) {
	bin := build(t)
	reference, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, page := range append(reference, operators(t)...) {
		mentions, err := pages.Mentions(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mentions {
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "synward"), append(words(m)[1:], "--help")...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %s", filepath.Base(page), m, out)
			}
			tried++
		}
	}
	if tried < 100 {
		t.Errorf("%d commands were found, which is too few", tried)
	}
}

// makeShell makes the folder in which the commands run, with what stands in it
// for the host's synward, for sudo, and for ssh to other edges, which are all this one.
func makeShell(t *testing.T, s *stage.Stage, bin string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"synward": fmt.Sprintf("exec nsenter --net=/run/netns/%s %s/synward --config %s \"$@\"", s.Edge.Name, bin, s.Config()),
		"sudo":    `exec "$@"`,
		"ssh":     `shift; exec sh -c "$*"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// play runs a block's commands and returns how many.
func play(t *testing.T, s *stage.Stage, shell string, b pages.Block) int {
	t.Helper()
	if b.Needs == pages.Stopped {
		if err := s.EndAgent(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		defer s.StartAgent()
	}
	for _, c := range b.Commands {
		if args := words(c); len(args) > 1 && args[1] == "top" {
			watch(t, s, args[1:])
			continue
		}
		script := c
		if strings.Contains(c, "--follow") { // it goes on until somebody ends it
			script = "timeout -s INT 2 " + c + "\n[ $? = 124 ]"
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Stdin = shell, strings.NewReader("a long password\n")
		cmd.Env = append(os.Environ(), "PATH="+shell+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", b.Where(), c, err, out)
		}
	}
	return len(b.Commands)
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
