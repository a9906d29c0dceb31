// Package e2e plays the user: real binaries, real hosts made of namespaces,
// real TCP and real SMTP. What it may look at is what a user can see.
package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/test/lab"
	"github.com/synward/synward/test/stage"
)

// binDir is the environment variable that tells the tests where the binaries
// are that TestMain has built.
const binDir = "SYNWARD_E2E_BIN"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == authorityCommand {
		return serveAuthority(os.Args[2:])
	}
	dir, err := os.MkdirTemp("/var/tmp", "synward-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the relay's user has to get at its program
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv(binDir, dir)
	return m.Run()
}

const (
	password = "correct horse battery staple"
	// soon is how long a thing may take to come about; it is polled for.
	soon = 20 * time.Second
	// silence is how long a knock waits before it calls it that: the first SYN
	// has had time to arrive, and its repetition comes after a second only.
	silence = 700 * time.Millisecond
)

// set builds a stage, and starts the agent on it where start says so.
func set(t *testing.T, start bool) *stage.Stage {
	t.Helper()
	if err := stage.LookAtSources("agent", "cmd", "loader", "relay"); err != nil {
		t.Fatalf("look at the sources: %v", err)
	}
	s := stage.New(t, os.Getenv(binDir), "")
	if start {
		s.StartAgent()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent's log:\n%s", s.Log())
		}
	})
	return s
}

// must runs a command that has to succeed, and returns its stdout.
func must(t *testing.T, s *stage.Stage, args ...string) string {
	t.Helper()
	r := s.Run(password+"\n", args...)
	if r.Code != 0 {
		t.Fatalf("synward %s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

// ask is must for an answer in JSON.
func ask(t *testing.T, s *stage.Stage, into any, args ...string) {
	t.Helper()
	out := must(t, s, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("synward %s --json: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
}

// knock is one attempt at a port: what is tried, and what must be heard.
type knock struct {
	host *lab.Host
	from string // an address of the host; empty = the host chooses
	to   string // the edge's address
	port string
	want string // "greeting", "silence" or "refused"
}

// heard makes the knocks all at once, since a silence takes its time.
func heard(t *testing.T, knocks ...knock) {
	t.Helper()
	said := make([]string, len(knocks))
	done := make(chan struct{})
	for i, k := range knocks {
		go func() {
			said[i] = stage.KnockFrom(k.host, k.from, net.JoinHostPort(k.to, k.port), silence)
			done <- struct{}{}
		}()
	}
	for range knocks {
		<-done
	}
	for i, k := range knocks {
		got := said[i]
		if strings.HasPrefix(got, "220 ") || got == "greeting in TLS" {
			got = "greeting"
		}
		if got != k.want {
			t.Errorf("%s%s knocks at %s port %s: %q, want %s", k.host.Name, k.from, k.to, k.port, said[i], k.want)
		}
	}
}

// letter is a mail from alice, who has an account.
func letter(subject string) stage.Letter {
	return stage.Letter{
		User: "alice", Password: password, From: "alice@edge.example", To: "bob@hop.example",
		Data: "Subject: " + subject + "\r\n\r\nHello Bob.\r\n",
	}
}

func edge(port string) string  { return net.JoinHostPort(stage.EdgeForClient, port) }
func edge6(port string) string { return net.JoinHostPort(stage.EdgeForClient6, port) }

// verdict is what explain says of an address and a port.
func verdict(t *testing.T, s *stage.Stage, addr string, port uint16) string {
	t.Helper()
	var e struct {
		Agree    bool
		Verdicts []struct{ Verdict string }
	}
	ask(t, s, &e, "explain", netip.MustParseAddr(addr).String(), "--port", fmt.Sprint(port))
	if len(e.Verdicts) != 1 || !e.Agree {
		t.Fatalf("explain %s port %d: %+v", addr, port, e)
	}
	return e.Verdicts[0].Verdict
}
