package supervise_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent/supervise"
)

// TestMain lets the test binary be the child as well.
func TestMain(m *testing.M) {
	if os.Getenv("SYNWARD_TEST_CHILD") != "" {
		child()
		return
	}
	if args := os.Getenv("SYNWARD_TEST_AGENT"); args != "" {
		otherAgent(args)
		return
	}
	os.Exit(m.Run())
}

// child serves what a relay does, in small: PUT /v1/settings on descriptor 3,
// and on 4 a line with its uid, pid and settings for every connection.
func child() {
	admin, err := net.FileListener(os.NewFile(3, "admin"))
	if err != nil {
		panic(err)
	}
	mail, err := net.FileListener(os.NewFile(4, "mail"))
	if err != nil {
		panic(err)
	}
	var settings atomic.Value
	settings.Store("none")
	http.HandleFunc("PUT /v1/settings", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if bytes.Contains(b, []byte("bad")) {
			http.Error(w, "hostname: is missing", http.StatusBadRequest)
			return
		}
		settings.Store(string(b))
	})
	go http.Serve(admin, nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		os.WriteFile(filepath.Join(os.Getenv("SPOOL"), "ended"), nil, 0o600)
		os.Exit(0)
	}()
	for {
		c, err := mail.Accept()
		if err != nil {
			return
		}
		groups, _ := os.Getgroups()
		fmt.Fprintf(c, "%d %d %d %s\n", os.Getuid(), len(groups), os.Getpid(), settings.Load())
		c.Close()
	}
}

const nobody = 65534

// place is where a test's child lives: a directory and a copy of the binary
// that the child's user may reach.
func place(t *testing.T) supervise.Options {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root: the child runs as another user")
	}
	dir, err := os.MkdirTemp("", "supervise")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "child")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	spool := filepath.Join(dir, "spool")
	return supervise.Options{
		Command: bin, User: "nobody", Socket: filepath.Join(dir, "run", "relay.sock"), Dir: spool,
		Env:       []string{"SYNWARD_TEST_CHILD=1", "SPOOL=" + spool},
		Listeners: []supervise.Listener{{Name: "mail", Address: "127.0.0.1", Port: freePort(t)}},
		Grace:     5 * time.Second,
		Settings:  func(context.Context) ([]byte, error) { return []byte("one"), nil },
		Log:       slog.New(slog.DiscardHandler),
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// run starts a supervisor; the returned function ends it as SIGTERM would.
func run(t *testing.T, o supervise.Options) (*supervise.Supervisor, func()) {
	t.Helper()
	s, err := supervise.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return s, stop
}

type greeting struct {
	uid, groups, pid int
	settings         string
}

func dial(t *testing.T, o supervise.Options) greeting {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", o.Listeners[0].Port), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var g greeting
	if _, err := fmt.Sscan(line, &g.uid, &g.groups, &g.pid, &g.settings); err != nil {
		t.Fatalf("greeting %q: %v", line, err)
	}
	return g
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func running(s *supervise.Supervisor) func() bool {
	return func() bool { return s.State().Running }
}

func TestChildRunsUnprivilegedWithSettings(t *testing.T) {
	o := place(t)
	s, stop := run(t, o)
	eventually(t, "the settings arrive", func() bool { return s.State().Running && dial(t, o).settings == "one" })
	g := dial(t, o)
	if g.uid != nobody || g.groups != 0 {
		t.Errorf("uid %d with %d groups, want %d with none", g.uid, g.groups, nobody)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000") {
			t.Errorf("%s is not empty:\n%s", set, status)
		}
	}
	stop()
	if _, err := os.Stat(filepath.Join(o.Dir, "ended")); err != nil {
		t.Errorf("the child was not asked to end: %v", err)
	}
	if _, err := os.Stat(o.Socket); err == nil {
		t.Error("the admin socket is left behind")
	}
}

func TestRestartKeepsBacklog(t *testing.T) {
	o := place(t)
	s, _ := run(t, o)
	eventually(t, "running", running(s))
	first := dial(t, o).pid
	// Stopped, the child accepts nothing: the connection waits in the backlog,
	// and the child is killed with it there.
	syscall.Kill(first, syscall.SIGSTOP)
	eventually(t, "the child is stopped", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", first))
		stopped := len(threads) > 0
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			stopped = stopped && strings.Contains(string(stat), ") T ")
		}
		return stopped
	})
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", o.Listeners[0].Port), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	syscall.Kill(first, syscall.SIGKILL)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatalf("the connection in the backlog was lost: %v", err)
	}
	eventually(t, "one restart is counted, with another pid", func() bool {
		st := s.State()
		return st.Restarts == 1 && st.PID != first
	})
}

func TestPushTellsRefusal(t *testing.T) {
	o := place(t)
	var settings atomic.Value
	settings.Store("one")
	o.Settings = func(context.Context) ([]byte, error) { return []byte(settings.Load().(string)), nil }
	s, _ := run(t, o)
	eventually(t, "running", running(s))
	settings.Store("bad")
	if err := s.Push(t.Context()); err == nil || !strings.Contains(err.Error(), "hostname: is missing") {
		t.Fatalf("Push of bad settings: %v", err)
	}
	settings.Store("two")
	if err := s.Push(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := dial(t, o); g.settings != "two" {
		t.Errorf("settings in force are %q after Push returned", g.settings)
	}
}

// orphan leaves a child behind as an agent does that is killed: a process of
// its own starts it, and dies.
func orphan(t *testing.T, o supervise.Options) int {
	t.Helper()
	args, err := json.Marshal(agentArgs{o.Command, o.Socket, o.Dir, o.Env, o.Listeners})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"SYNWARD_TEST_AGENT=" + string(args)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other agent's child has settings", func() bool {
		_, err := os.Stat(o.Socket + ".json")
		return err == nil && dial(t, o).settings == "other"
	})
	cmd.Process.Kill()
	cmd.Wait()
	pid := dial(t, o).pid
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

// agentArgs is what the other agent needs of the options.
type agentArgs struct {
	Command, Socket, Dir string
	Env                  []string
	Listeners            []supervise.Listener
}

// otherAgent supervises until it is killed.
func otherAgent(args string) {
	var a agentArgs
	if err := json.Unmarshal([]byte(args), &a); err != nil {
		panic(err)
	}
	s, err := supervise.New(supervise.Options{
		Command: a.Command, Socket: a.Socket, Dir: a.Dir, Env: a.Env, Listeners: a.Listeners, User: "nobody",
		Settings: func(context.Context) ([]byte, error) { return []byte("other"), nil },
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	s.Run(context.Background())
}

func TestRecordNamesTheChild(t *testing.T) {
	o := place(t)
	s, _ := run(t, o)
	eventually(t, "running", running(s))
	b, err := os.ReadFile(o.Socket + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var rec struct{ PID int }
	if err := json.Unmarshal(b, &rec); err != nil || rec.PID != s.State().PID {
		t.Errorf("record %s, want pid %d (%v)", b, s.State().PID, err)
	}
	if fi, err := os.Stat(o.Socket + ".json"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the record's mode is not 0600: %v %v", fi.Mode(), err)
	}
}

func TestOrphanIsAdopted(t *testing.T) {
	o := place(t)
	pid := orphan(t, o)
	o.Settings = func(context.Context) ([]byte, error) { return []byte("anew"), nil }
	s, stop := run(t, o)
	eventually(t, "the adopted child has the new settings", func() bool { return dial(t, o).settings == "anew" })
	if st := s.State(); !st.Adopted || st.PID != pid {
		t.Errorf("state %+v, want %d adopted", st, pid)
	}
	stop()
	if _, err := os.Stat(filepath.Join(o.Dir, "ended")); err != nil {
		t.Error("the adopted child was not asked to end")
	}
}

func TestOrphanOfOtherSettingsIsReplaced(t *testing.T) {
	o := place(t)
	pid := orphan(t, o)
	o.Env = append(o.Env, "NEW=1")
	s, _ := run(t, o)
	eventually(t, "a new child runs", func() bool { return s.State().Running && dial(t, o).settings == "one" })
	if st := s.State(); st.Adopted || st.PID == pid {
		t.Errorf("state %+v, want a child other than %d", st, pid)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "ended")); err != nil {
		t.Error("the old child was not asked to end")
	}
}

func TestBadPlaces(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		change func(*supervise.Options)
		want   string
	}{
		"bad user":    {func(o *supervise.Options) { o.User = "no-such-user" }, "useradd --system"},
		"bad root":    {func(o *supervise.Options) { o.User = "root" }, "unprivileged"},
		"bad port":    {func(o *supervise.Options) { o.Listeners[0].Port = uint16(taken.Addr().(*net.TCPAddr).Port) }, "another program has the port"},
		"bad address": {func(o *supervise.Options) { o.Listeners[0].Address = "192.0.2.1" }, "does not have the address"},
		"bad program": {func(o *supervise.Options) { o.Command += "-not" }, "find the relay's"},
		"unreachable": {func(o *supervise.Options) { os.Chmod(filepath.Dir(o.Command), 0o700) }, "may not execute"},
	} {
		t.Run(name, func(t *testing.T) {
			o := place(t)
			c.change(&o)
			s, err := supervise.New(o)
			if err == nil {
				s.Close()
				t.Fatal("New did not fail")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, c.want)
			}
		})
	}
}
