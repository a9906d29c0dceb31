// Package stage is the cast of the demo and of the end-to-end tests: an edge
// with the real agent, filter and relay on it, a client, a stranger and a next
// hop, each a host of its own.
//
//	client   192.0.2.10    ──eth0─┐
//	                              edge ──up0── next hop 203.0.113.25
//	stranger 198.51.100.66 ──eth1─┘
package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/synward/synward/test/lab"
)

// The addresses of the cast.
const (
	EdgeForClient   = "192.0.2.1"
	EdgeForStranger = "198.51.100.1"
	ClientAddr      = "192.0.2.10"
	StrangerAddr    = "198.51.100.66"
	HopAddr         = "203.0.113.25"
	ClientPrefix    = "192.0.2.0/24"
	ClientAddr6     = "2001:db8:c::10"
	EdgeForClient6  = "2001:db8:c::1"
	StrangerAddr6   = "2001:db8:5::66"
	EdgeForStrange6 = "2001:db8:5::1"
)

// Stage is the cast with its props.
type Stage struct {
	Edge, Client, Stranger, Hop *lab.Host
	Sink                        *Sink
	Dir                         string // all that the edge keeps: config, state, spool, sockets
	PinDir                      string

	t     lab.T
	bin   string
	certs certs
	log   *os.File
	agent *exec.Cmd
	done  chan error
}

// New builds the hosts, the certificates and the edge's configuration, and
// starts the next hop. bin is the folder of synward and synward-relay; extra is
// added to the configuration.
func New(t lab.T, bin, extra string) *Stage {
	t.Helper()
	s := &Stage{t: t, bin: bin}
	s.Edge, s.Client = lab.NewHost(t, "edge"), lab.NewHost(t, "client")
	s.Stranger, s.Hop = lab.NewHost(t, "stranger"), lab.NewHost(t, "hop")
	lab.Connect(s.Edge, "eth0", s.Client, "eth0")
	lab.Connect(s.Edge, "eth1", s.Stranger, "eth0")
	lab.Connect(s.Edge, "up0", s.Hop, "eth0")
	s.Edge.Address("eth0", EdgeForClient+"/24", EdgeForClient6+"/64")
	s.Edge.Address("eth1", EdgeForStranger+"/24", EdgeForStrange6+"/64")
	s.Edge.Address("up0", "203.0.113.1/24")
	s.Client.Address("eth0", ClientAddr+"/24", ClientAddr6+"/64")
	s.Stranger.Address("eth0", StrangerAddr+"/24", StrangerAddr6+"/64")
	s.Hop.Address("eth0", HopAddr+"/24")

	// the relay's user has to reach its spool, so this is not a test's 0700 folder
	dir, err := os.MkdirTemp("/var/tmp", "synward-stage-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatalf("make a folder: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatalf("make a log: %v", err)
	}
	t.Cleanup(func() { s.log.Close() })
	s.Dir, s.PinDir = dir, filepath.Join(lab.BPFFS(t), "synward")
	if s.certs, err = makeCerts(dir, "edge.example", HopAddr, StrangerAddr); err != nil {
		t.Fatalf("make certificates: %v", err)
	}
	s.Sink = startSink(t, s.Hop, net.JoinHostPort(HopAddr, "25"), s.certs)
	s.configure(extra)
	t.Cleanup(s.endAll)
	return s
}

func (s *Stage) configure(extra string) {
	text := fmt.Sprintf(`[filter]
interfaces = ["eth*"]
pin_dir    = %q

[store]
path = "%[2]s/state/store.db"

[control]
socket = "%[2]s/run/synward.sock"

[relay]
enabled   = true
hostname  = "edge.example"
user      = "nobody"
spool     = "%[2]s/spool"
listen    = [{ port = 587, tls = "starttls" }, { port = 465, tls = "implicit" }, { port = 25, tls = "starttls" }]
tls       = { cert = "%[2]s/cert.pem", key = "%[2]s/key.pem" }
smarthost = [{ host = %[3]q, port = 25, tls = "required", ca = "%[2]s/ca.pem" }]
retry     = { min = "1s", max = "2s" }
%[4]s`, s.PinDir, s.Dir, HopAddr, extra)
	if err := os.WriteFile(s.Config(), []byte(text), 0o644); err != nil {
		s.t.Fatalf("write the configuration: %v", err)
	}
}

// Config is the path of the edge's configuration file.
func (s *Stage) Config() string { return filepath.Join(s.Dir, "synward.toml") }

// Capabilities are those of the agent, as packaging/systemd/synward.service bounds
// them: here too it has no other.
const Capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL"

// AgentCommand is the agent with these capabilities and no other, not started.
func (s *Stage) AgentCommand(ctx context.Context, capabilities string) *exec.Cmd {
	caps := strings.ReplaceAll(strings.ToLower(capabilities), "cap_", "+")
	return s.Edge.Command(ctx, "setpriv", "--bounding-set", strings.Join(append([]string{"-all"}, strings.Fields(caps)...), ","),
		"--no-new-privs", "--", filepath.Join(s.bin, "synward"), "--config", s.Config(), "agent")
}

// StartAgent starts the agent and waits until it answers.
func (s *Stage) StartAgent() {
	s.t.Helper()
	s.agent = s.AgentCommand(context.Background(), Capabilities)
	// a file and not a pipe: the relay inherits it and outlives the agent
	s.agent.Stdout, s.agent.Stderr = s.log, s.log
	// the agent is the process itself: nsenter and setpriv exec it
	if err := s.agent.Start(); err != nil {
		s.t.Fatalf("start the agent: %v", err)
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(s.agent, s.done)
	deadline := time.Now().Add(15 * time.Second)
	for {
		if s.Ready() {
			return
		}
		select {
		case err := <-s.done:
			s.done <- err
			s.t.Fatalf("the agent ended: %v\n%s", err, s.Log())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the agent does not answer:\n%s", s.Log())
		}
	}
}

// Ready says whether the agent answers and its relay takes mail.
func (s *Stage) Ready() bool {
	out, code := s.Synward("status", "--json")
	var status struct {
		Relay struct {
			Own struct {
				Ready bool `json:"ready"`
			} `json:"own"`
		} `json:"relay"`
	}
	return code == 0 && json.Unmarshal([]byte(out), &status) == nil && status.Relay.Own.Ready
}

// EndAgent sends the agent a signal and waits for its end.
func (s *Stage) EndAgent(sig syscall.Signal) error {
	if s.agent == nil {
		return nil
	}
	_ = s.agent.Process.Signal(sig)
	select {
	case err := <-s.done:
		s.agent = nil
		return err
	case <-time.After(20 * time.Second):
		_ = s.agent.Process.Kill()
		s.agent = nil
		return errors.New("the agent did not end within 20 s")
	}
}

// Reload asks the agent to read its configuration again.
func (s *Stage) Reload() error { return s.agent.Process.Signal(syscall.SIGHUP) }

// Log is what the agent and the relay have printed so far.
func (s *Stage) Log() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// AgentPID is the agent's process.
func (s *Stage) AgentPID() int { return s.agent.Process.Pid }

// endAll stops the agent, which stops the relay, and sees that the filter goes.
func (s *Stage) endAll() {
	if s.agent == nil { // somebody has to stop the relay that outlived it
		s.StartAgent()
	}
	if err := s.EndAgent(syscall.SIGTERM); err != nil {
		fmt.Fprintf(os.Stderr, "stop the agent: %v\n%s", err, s.Log())
	}
	s.Synward("unload")
}
