package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
	"github.com/synward/synward/test/stage"
)

// binDir tells the tests where TestMain has built the command.
const binDir = "SYNWARD_FAULTS_BIN"

var rounds = flag.Int("rounds", 6, "how often the agent is killed")

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/var/tmp", "synward-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", dir+"/", "../../cmd/synward").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv(binDir, dir)
	return m.Run()
}

// The network: one side with the agent, and one with what it fetches from.
const (
	edgeAddr = "203.0.113.1"
	farAddr  = "203.0.113.9" // a public address, by the agent's lights
)

// edge is a host with an agent.
type edge struct {
	t         *testing.T
	host, far *lab.Host
	dir       string // of the configuration, the log and the socket
	state     string
	pins      string
	env       []string
	cmd       *exec.Cmd
	ended     chan error
}

// newEdge makes the hosts and a configuration; extra is added to it. state is
// the folder of the store; "" = one of its own.
func newEdge(t *testing.T, state, extra string) *edge {
	t.Helper()
	if err := stage.LookAtSources("agent", "cmd", "loader"); err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, host: lab.NewHost(t, "edge"), far: lab.NewHost(t, "far"), dir: t.TempDir(), state: state}
	lab.Connect(e.host, "eth0", e.far, "eth0")
	e.host.Address("eth0", edgeAddr+"/24")
	e.far.Address("eth0", farAddr+"/24")
	e.pins = filepath.Join(lab.BPFFS(t), "synward")
	if e.state == "" {
		e.state = filepath.Join(e.dir, "state")
	}
	text := fmt.Sprintf("[filter]\ninterfaces = [\"eth0\"]\npin_dir = %q\n[store]\npath = %q\n[control]\nsocket = %q\ngroup = \"root\"\n%s",
		e.pins, e.store(), filepath.Join(e.dir, "sock"), extra)
	if err := os.WriteFile(e.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if e.cmd != nil {
			e.kill()
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", e.log())
		}
		e.run("", "unload")
	})
	return e
}

func (e *edge) config() string { return filepath.Join(e.dir, "synward.toml") }
func (e *edge) store() string  { return filepath.Join(e.state, "store.db") }

func (e *edge) log() string {
	b, err := os.ReadFile(filepath.Join(e.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

// launch starts the agent, and does not wait for it.
func (e *edge) launch() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd = e.host.Command(context.Background(), e.bin(), "--config", e.config(), "agent")
	e.cmd.Stdout, e.cmd.Stderr, e.cmd.Env = log, log, append(os.Environ(), e.env...)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(e.cmd, e.ended)
}

// start starts the agent and waits until it answers.
func (e *edge) start() {
	e.t.Helper()
	e.launch()
	eventually(e.t, "the agent answers", func() bool {
		select {
		case err := <-e.ended:
			e.t.Fatalf("the agent has ended: %v\n%s", err, e.log())
		default:
		}
		_, code := e.run("", "policy", "history", "--last", "1")
		return code == 0
	})
}

// kill ends the agent at once.
func (e *edge) kill() {
	e.t.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Fatalf("kill the agent: %v\n%s", err, e.log())
	}
	<-e.ended
	e.cmd = nil
}

func (e *edge) bin() string { return filepath.Join(os.Getenv(binDir), "synward") }

// run runs a command, and returns what it says and its exit status.
func (e *edge) run(input string, args ...string) (said string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := e.host.Command(ctx, e.bin(), append([]string{"--config", e.config()}, args...)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		return err.Error(), -1
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must is run for what has to succeed.
func (e *edge) must(input string, args ...string) string {
	e.t.Helper()
	out, code := e.run(input, args...)
	if code != 0 {
		e.t.Fatalf("synward %s: exit status %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// fails is run for what has to fail with some words.
func (e *edge) fails(words, input string, args ...string) {
	e.t.Helper()
	if out, code := e.run(input, args...); code == 0 || !strings.Contains(out, words) {
		e.t.Errorf("synward %s: exit status %d, want a failure with %q\n%s", strings.Join(args, " "), code, words, out)
	}
}

// status is what the agent says is wrong.
func (e *edge) problems() string {
	e.t.Helper()
	out := e.must("", "status", "--json")
	var st struct{ Problems []string }
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		e.t.Fatalf("status: %v\n%s", err, out)
	}
	return strings.Join(st.Problems, "\n")
}

// passing are those of some addresses that the kernel lets in, by the pinned
// program itself.
func (e *edge) passing(addrs ...netip.Addr) (out []netip.Addr) {
	e.t.Helper()
	f, err := loader.View(e.pins)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	for _, a := range addrs {
		ans, err := f.Probe(a, 587)
		if err != nil {
			e.t.Fatal(err)
		}
		if ans.Verdict == rule.Pass {
			out = append(out, a)
		}
	}
	return out
}

// enforces says whether the kernel lets in just the first of two addresses.
func (e *edge) enforces(in, out string) {
	e.t.Helper()
	a, b := netip.MustParseAddr(in), netip.MustParseAddr(out)
	if got := e.passing(a, b); len(got) != 1 || got[0] != a {
		e.t.Errorf("the kernel lets in %v, want %s alone", got, a)
	}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
