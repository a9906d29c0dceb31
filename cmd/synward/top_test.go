package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/test/terminal"
)

// fakeAgent is the real control server with made-up answers.
type fakeAgent struct {
	t       *testing.T
	socket  string
	packets atomic.Uint64
	mu      sync.Mutex
	adds    []control.Add
	stop    func()
}

func (a *fakeAgent) start() {
	a.t.Helper()
	s, err := control.Listen(control.Options{Socket: a.socket, Group: "root", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, []control.Route{
			{Pattern: "GET /v1/status", Handler: a.status}, {Pattern: "GET /v1/sources", Handler: a.sources},
			{Pattern: "GET /v1/explain", Handler: a.explain}, {Pattern: "POST /v1/entries", Handler: a.add},
		})
	}()
	a.stop = sync.OnceFunc(func() { cancel(); <-done })
	a.t.Cleanup(a.stop)
}

func (a *fakeAgent) status(*http.Request) (any, error) {
	return control.Status{
		Agent: &control.AgentStatus{Version: "test", PID: 1, Since: time.Now()},
		Filter: control.FilterStatus{Loaded: true, Mode: "enforce", Connections: 7,
			Interfaces: []control.Interface{{Name: "eth0", Mode: "native"}},
			Counters:   []control.Counter{{Port: 25, Reason: "no-entry", Verdict: "drop", Packets: a.packets.Add(1000)}}},
		Relay: &control.RelayStatus{Running: true, PID: 2, Own: []byte(`{"ready":true,"sessions":3,"queue":{"items":42,"deferred":5}}`)},
	}, nil
}

func (a *fakeAgent) sources(r *http.Request) (any, error) {
	many := control.Sources{Since: time.Now(), Sources: []control.SourceUse{
		{Source: netip.MustParsePrefix("198.51.100.66/32"), Attempts: 900, Dropped: 900, Reasons: map[string]uint64{"no-entry": 900}, Last: time.Now()},
		{Source: netip.MustParsePrefix("2001:db8:5::/64"), Attempts: 80, Passed: 80, Open: 7, Last: time.Now()},
	}}
	if r.URL.Query().Get("by") == "open" {
		many.Sources[0], many.Sources[1] = many.Sources[1], many.Sources[0]
	}
	for i := range 60 {
		addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		many.Sources = append(many.Sources, control.SourceUse{Source: netip.PrefixFrom(addr, 32), Attempts: 1})
	}
	return many, nil
}

func (a *fakeAgent) explain(r *http.Request) (any, error) {
	addr, err := netip.ParseAddr(r.URL.Query().Get("addr"))
	return control.Explanation{Source: addr, Agree: true, Verdicts: []control.PortVerdict{
		{Port: 25, Verdict: "pass", Reason: "allowed", Policy: "pass", Agree: true, Caps: &control.Caps{Connections: 50, Open: 7, Rate: "0"}}}}, err
}

func (a *fakeAgent) add(r *http.Request) (any, error) {
	var add control.Add
	if err := control.Decode(r, &add); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.adds = append(a.adds, add)
	a.mu.Unlock()
	ans := control.Changed{DryRun: add.DryRun, Added: add.Entries}
	if add.DryRun {
		ans.Impact = &control.Impact{Since: time.Now(), Admits: control.Affected{Sources: 1, Attempts: 900}}
	}
	return ans, nil
}

// made are the changes that were asked for, without the dry runs.
func (a *fakeAgent) made() (out []policy.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, add := range a.adds {
		if !add.DryRun {
			out = append(out, add.Entries...)
		}
	}
	return out
}

// startTop runs synward top on a terminal of 80x24. The function sends it a
// signal (0 = none), waits for its end, and returns the exit status and what
// went to stderr.
func startTop(t *testing.T) (*fakeAgent, *terminal.Terminal, func(syscall.Signal) (int, string)) {
	t.Helper()
	a := &fakeAgent{t: t, socket: filepath.Join(t.TempDir(), "s.sock")}
	a.start()
	x := terminal.New(t, 80, 24)
	before := termios(t, x)
	var errs bytes.Buffer
	cmd := exec.Command(os.Args[0], "--socket", a.socket, "top", "--every", "200ms")
	cmd.Args[0], cmd.Stderr = "synward", &errs // TestMain is the program then
	races := filepath.Join(t.TempDir(), "race")
	cmd.Env = append(os.Environ(), "GORACE=exitcode=0 log_path="+races)
	x.Start(cmd)
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	return a, x, func(sig syscall.Signal) (int, string) {
		t.Helper()
		cmd.Process.Signal(sig)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the view does not end")
		}
		ourRaces(t, races)
		if after := termios(t, x); !reflect.DeepEqual(before, after) {
			t.Errorf("the terminal was %+v and is %+v", before, after)
		}
		return cmd.ProcessState.ExitCode(), errs.String()
	}
}

// ourRaces fails for what the race detector has seen, but for one that is not
// ours: at its end the view's library closes the keyboard's descriptor beside the
// goroutine that has just read from it.
func ourRaces(t *testing.T, path string) {
	t.Helper()
	files, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for report := range strings.SplitSeq(string(text), "WARNING: DATA RACE") {
			if strings.Contains(report, "goroutine") && !strings.Contains(report, "cancelreader.(*epollCancelReader).Close") {
				t.Errorf("data race:%s", report)
			}
		}
	}
}

func termios(t *testing.T, x *terminal.Terminal) *unix.Termios {
	t.Helper()
	got, err := unix.IoctlGetTermios(int(x.TTY.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// keysAt waits until the keys stand in the last of so many rows and no row is
// cut off by the terminal itself.
func keysAt(x *terminal.Terminal, rows int) {
	x.Await("the keys in its last row", func(lines []string) bool {
		return len(lines) == rows && strings.Contains(lines[rows-1], "q quit") && strings.HasPrefix(lines[0], "synward top")
	})
}

func TestTopShowsRatesSourcesCapsAndQueue(t *testing.T) {
	_, x, end := startTop(t)
	keysAt(x, 24)
	for _, want := range []string{"enforcing; eth0 native", "7 connections", "42 items, 5 deferred", "3 open; messages", "no-entry", "198.51.100.66", "7/50"} {
		x.AwaitText(want)
	}
	x.Await("a rate above 0", func(lines []string) bool {
		for _, l := range lines {
			f := strings.Fields(l)
			if len(f) > 2 && f[0] == "no-entry" {
				return f[2] != "0.0"
			}
		}
		return false
	})
	for _, size := range [][2]int{{132, 50}, {60, 14}, {80, 24}} {
		x.Resize(size[0], size[1])
		keysAt(x, size[1])
		x.AwaitText("198.51.100.66")
	}
	x.Type("ss") // by dropped, then by open
	x.AwaitText("SOURCE, by open")
	x.Await("the source with open connections first", func(lines []string) bool {
		text := strings.Join(lines, "\n")
		return strings.Index(text, "2001:db8:5::/64") < strings.Index(text, "198.51.100.66")
	})
	x.Type("q")
	if code, errs := end(0); code != 0 || errs != "" {
		t.Errorf("exit status %d, stderr %q", code, errs)
	}
	x.Await("the screen of before", func([]string) bool { return strings.Contains(x.Raw(), "\x1b[?1049l") })
}

func TestTopChangesNothingWithoutAYes(t *testing.T) {
	a, x, _ := startTop(t)
	x.AwaitText("198.51.100.66")
	for _, no := range []string{"n", "\x1b", "q"} {
		x.Type("a")
		x.AwaitText("y do it")
		x.AwaitText("would be added    allow     198.51.100.66/32")
		x.AwaitText("impact: lets in 1 source, 900 attempts")
		x.Type(no)
		keysAt(x, 24)
	}
	x.Type("y") // there is nothing to say yes to
	x.Type("e")
	x.AwaitText("198.51.100.66 -> port 25: pass (allowed)")
	if made := a.made(); len(made) != 0 {
		t.Fatalf("changed: %v", made)
	}
}

func TestTopAllowsAndDeniesTheSelected(t *testing.T) {
	a, x, _ := startTop(t)
	x.AwaitText("198.51.100.66")
	for _, step := range []struct{ keys, want string }{{"a", "allow 198.51.100.66/32"}, {"jd", "deny 2001:db8:5::/64"}} {
		x.Type(step.keys)
		x.AwaitText("y do it")
		x.Type("y")
		x.AwaitText("any key: back")
		x.Type("x")
		keysAt(x, 24)
		made := a.made()
		if got := made[len(made)-1]; string(got.Action)+" "+got.Prefix.String() != step.want {
			t.Errorf("%q: %v, want %s", step.keys, got, step.want)
		}
	}
}

func TestTopOutlivesTheAgent(t *testing.T) {
	a, x, end := startTop(t)
	x.AwaitText("198.51.100.66")
	a.stop()
	x.AwaitText("agent not running")
	x.Type("a")
	x.AwaitText("any key: back")
	x.Type("x")
	a.start()
	x.Await("the agent again", func(lines []string) bool {
		text := strings.Join(lines, "\n")
		return !strings.Contains(text, "not running") && strings.Contains(text, "enforcing")
	})
	if code, errs := end(syscall.SIGTERM); code != 0 || errs != "" {
		t.Errorf("exit status %d, stderr %q", code, errs)
	}
}

func TestTopSaysThatThereIsNoTerminal(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"synward", "--socket", "/nowhere", "top"}, streams{in: strings.NewReader(""), out: &out, err: &errs})
	if code != 1 || out.Len() != 0 || strings.Count(errs.String(), "\n") != 1 || !strings.Contains(errs.String(), "no terminal") {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
}
