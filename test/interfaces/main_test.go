// Package interfaces tries the agent on a host whose interfaces come, go and are
// stacked on each other. The agent is a process of its own: this test program
// once more. The kinds of interface that not every kernel has are named by a
// flag; test/kernels names all of them.
package interfaces

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/test/lab"
)

// patience is how long a thing may take to come about; it is polled for. An
// emulated machine whose host was busy has taken 52 s to load the filter.
const patience = 3 * time.Minute

// configFile tells this program to be the agent.
const configFile = "SYNWARD_TEST_AGENT"

func TestMain(m *testing.M) {
	file := os.Getenv(configFile)
	if file == "" {
		os.Exit(m.Run())
	}
	if err := beAgent(file); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func beAgent(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	a, err := agent.New(ctx, agent.Options{Config: c, Log: log})
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			c, err := readConfig(file)
			if err == nil {
				err = a.Reload(ctx, c, nil)
			}
			log.Info("reloaded", "error", err)
		}
	}()
	return a.Run(ctx)
}

func readConfig(file string) (c agent.Config, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(text, &c)
}

// buffer is the agent's stderr.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// edge is a host with a running agent. Whoever has the address 192.0.2.2,
// 198.51.100.2 or 203.0.113.2 is allowed; those that end in .3 are strangers.
type edge struct {
	*lab.Host
	t      *testing.T
	config agent.Config
	file   string
	log    *buffer
	cmd    *exec.Cmd
	ended  chan error
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	dir := t.TempDir()
	e := &edge{Host: lab.NewHost(t, "edge"), t: t, file: filepath.Join(dir, "config.json"), log: &buffer{}}
	e.config = agent.DefaultConfig()
	e.config.Filter.PinDir = filepath.Join(lab.BPFFS(t), "synward")
	e.config.Store.Path = filepath.Join(dir, "state", "store.db")
	e.config.Control.Socket = filepath.Join(dir, "s")
	t.Cleanup(func() {
		e.stop()
		if t.Failed() {
			t.Log("the agent's log:\n", e.log)
		}
	})
	return e
}

// connect gives the edge an interface with a neighbour behind it.
func (e *edge) connect(name, net string) *lab.Host {
	e.t.Helper()
	peer := lab.NewHost(e.t, "peer")
	lab.Connect(e.Host, name, peer, "eth0")
	e.Address(name, net+".1/24")
	peer.Address("eth0", net+".2/24", net+".3/24")
	return peer
}

func (e *edge) configure(attach loader.Mode, interfaces ...string) {
	e.t.Helper()
	e.config.Filter.Interfaces, e.config.Filter.Attach = interfaces, attach
	text, err := json.Marshal(e.config)
	if err == nil {
		err = os.WriteFile(e.file, text, 0o600)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// launch starts an agent, whatever comes of it.
func (e *edge) launch() {
	e.t.Helper()
	e.cmd, e.ended = exec.Command("/proc/self/exe"), make(chan error, 1)
	e.cmd.Env = append(os.Environ(), configFile+"="+e.file)
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	e.Do(e.cmd.Start) // a child is in the namespace of the thread that starts it
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(e.cmd, e.ended)
}

// start starts the agent, waits until it answers and gives it its entries.
func (e *edge) start(attach loader.Mode, interfaces ...string) {
	e.t.Helper()
	e.configure(attach, interfaces...)
	e.launch()
	e.eventually("the agent answers", func() bool { _, err := e.ask(); return err == nil })
	var add control.Add
	for _, p := range []string{"192.0.2.2/32", "198.51.100.2/32", "203.0.113.2/32"} {
		add.Entries = append(add.Entries, policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix(p)})
	}
	if _, err := control.NewClient(e.config.Control.Socket).Do(e.t.Context(), http.MethodPost, "/v1/entries", add, nil, nil); err != nil {
		e.t.Fatalf("add entries: %v", err)
	}
}

func (e *edge) stop() {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	<-e.ended
	e.cmd = nil
}

func (e *edge) ask() (control.Status, error) {
	var st control.Status
	ctx, cancel := context.WithTimeout(e.t.Context(), 5*time.Second)
	defer cancel()
	_, err := control.NewClient(e.config.Control.Socket).Do(ctx, http.MethodGet, "/v1/status", nil, &st, nil)
	return st, err
}

// shown is how status shows an interface; zero where it does not.
func (e *edge) shown(name string) control.Interface {
	e.t.Helper()
	st, err := e.ask()
	if err != nil {
		e.t.Fatalf("status: %v", err)
	}
	for _, i := range st.Filter.Interfaces {
		if i.Name == name {
			return i
		}
	}
	return control.Interface{}
}

// problems are the lines of status that hold the words.
func (e *edge) problems(words ...string) (found []string) {
	e.t.Helper()
	st, err := e.ask()
	if err != nil {
		e.t.Fatalf("status: %v", err)
	}
	for _, p := range st.Problems {
		all := true
		for _, w := range words {
			all = all && strings.Contains(p, w)
		}
		if all {
			found = append(found, p)
		}
	}
	return found
}

func (e *edge) eventually(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// attached waits until status shows the interface in a mode.
func (e *edge) attached(name string, mode loader.Mode) {
	e.t.Helper()
	e.eventually(fmt.Sprintf("%s is attached, %s", name, mode), func() bool { return e.shown(name).Mode == mode })
}

// guarded wants the stranger behind an address to meet silence on port 25, and
// the allowed source to come through.
func (e *edge) guarded(peer *lab.Host, net string) {
	e.t.Helper()
	if c, err := peer.Dial(net+".2", net+".1:25", 5*time.Second); err != nil {
		e.t.Errorf("%s.2 is allowed: %v", net, err)
	} else {
		c.Close()
	}
	if e.reached(peer, net) {
		e.t.Errorf("the stranger %s.3 came through", net)
	}
}

// reached says whether the stranger of a network comes through.
func (e *edge) reached(peer *lab.Host, net string) bool {
	c, err := peer.Dial(net+".3", net+".1:25", 700*time.Millisecond)
	if err == nil {
		c.Close()
	}
	return err == nil
}
