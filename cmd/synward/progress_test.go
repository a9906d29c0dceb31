package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/test/terminal"
)

// slowAgent answers changes when it is let go, and knows which it was sent.
type slowAgent struct {
	socket string
	asked  chan string
	let    chan struct{}
}

func startSlowAgent(t *testing.T) *slowAgent {
	t.Helper()
	a := &slowAgent{socket: filepath.Join(t.TempDir(), "s"), asked: make(chan string, 1), let: make(chan struct{})}
	s, err := control.Listen(control.Options{Socket: a.socket, Group: "root", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	handle := func(r *http.Request) (any, error) {
		a.asked <- r.URL.Path
		<-a.let
		return control.Changed{}, nil
	}
	done := make(chan error, 1)
	go func() {
		done <- s.Run(t.Context(), []control.Route{
			{Pattern: "POST /v1/entries", Handler: handle}, {Pattern: "POST /v1/entries/remove", Handler: handle}, {Pattern: "POST /v1/policy", Handler: handle},
		})
	}()
	t.Cleanup(func() { <-done })
	return a
}

// What takes its time says so on a terminal: as long as the list comes in, and
// as long as the agent is at it. The line goes before the answer is written.
func TestLongChangesShowThatTheyGoOn(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args  []string
		path  string
		stdin bool
	}{
		"allow add":     {[]string{"allow", "add", "-"}, "/v1/entries", true},
		"allow remove":  {[]string{"allow", "remove", "-"}, "/v1/entries/remove", true},
		"deny add":      {[]string{"deny", "add", "-"}, "/v1/entries", true},
		"policy apply":  {[]string{"policy", "apply", list}, "/v1/policy", false},
		"policy import": {[]string{"policy", "import", list}, "/v1/entries", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, x := startSlowAgent(t), terminal.New(t, 100, 10)
			in, feed := io.Pipe()
			var out bytes.Buffer
			ended := make(chan int, 1)
			go func() {
				ended <- run(t.Context(), append([]string{"synward", "--socket", a.socket}, c.args...), streams{in: in, out: &out, err: x.TTY})
				in.Close() // so that what is still fed does not wait for ever
			}()
			if c.stdin {
				n := 0
				x.Await("how much was read", func(lines []string) bool {
					n++
					fmt.Fprintf(feed, "192.0.%d.%d\n", n/256, n%256)
					return strings.Contains(strings.Join(lines, "\n"), "reading stdin")
				})
				feed.Close()
			}
			if path := <-a.asked; path != c.path {
				t.Errorf("asked for %s", path)
			}
			x.AwaitText("bringing the change in force")
			close(a.let)
			if code := <-ended; code != 0 || out.String() != "nothing to change\n" {
				t.Errorf("exit status %d, stdout %q, terminal %q", code, out.String(), x.Raw())
			}
			if strings.Contains(x.Raw(), "force (") {
				t.Errorf("bytes are counted where there are none: %q", x.Raw())
			}
			x.Await("nothing on it any more", func(lines []string) bool { return strings.TrimSpace(strings.Join(lines, "")) == "" })
		})
	}
}

// Elsewhere than on a terminal nothing of it is written, however long it takes.
func TestNothingIsShownWhereThereIsNoTerminal(t *testing.T) {
	for _, verb := range []string{"add", "remove"} {
		a := startSlowAgent(t)
		var out, errs bytes.Buffer
		ended := make(chan int, 1)
		go func() {
			ended <- run(t.Context(), []string{"synward", "--socket", a.socket, "allow", verb, "-"}, streams{in: strings.NewReader("192.0.2.1\n"), out: &out, err: &errs})
		}()
		<-a.asked
		time.Sleep(3 * spinEvery) // would have been shown by now
		close(a.let)
		if code := <-ended; code != 0 || errs.Len() != 0 {
			t.Errorf("allow %s: exit status %d, stderr %q", verb, code, errs.String())
		}
	}
}
