package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"synward": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			code := run(ctx, os.Args, streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
			stop()
			os.Exit(code)
		},
	})
}

// The scripts in testdata speak to real agents on the real kernel, each in two
// network namespaces of its own: $EDGE, with the agent's eth0 (10.9.0.1), and
// $FAR behind it (10.9.0.2).
func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it loads the filter")
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "await": await, "stopagent": stopAgent, "replace": replace,
			"age": age, "mend": mend,
		},
	})
}

// setUp makes the namespaces and a bpffs, and a configuration that uses them.
func setUp(env *testscript.Env) error {
	name := fmt.Sprintf("syn%d-%s", os.Getpid(), filepath.Base(env.WorkDir))
	edge, far, pins := name+"e", name+"f", filepath.Join(env.WorkDir, "bpf")
	env.Defer(func() {
		exec.Command("ip", "netns", "del", edge).Run()
		exec.Command("ip", "netns", "del", far).Run()
		syscall.Unmount(pins, syscall.MNT_DETACH)
	})
	if err := os.Mkdir(pins, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	for _, line := range []string{
		"netns add " + edge, "netns add " + far,
		"-n " + edge + " link add eth0 type veth peer name eth0 netns " + far,
		"-n " + edge + " addr add 10.9.0.1/24 dev eth0", "-n " + far + " addr add 10.9.0.2/24 dev eth0",
		"-n " + edge + " link set eth0 up", "-n " + far + " link set eth0 up",
		"-n " + edge + " link set lo up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	env.Setenv("EDGE", "/run/netns/"+edge)
	env.Setenv("FAR", "/run/netns/"+far)
	conf := fmt.Sprintf("[filter]\ninterfaces = [\"eth0\"]\nmode = \"enforce\"\npin_dir = %q\n[store]\npath = %q\n[control]\nsocket = %q\ngroup = \"root\"\n",
		filepath.Join(pins, "synward"), filepath.Join(env.WorkDir, "state/store.db"), filepath.Join(env.WorkDir, "run/s.sock"))
	// The race detector has every process sleep for a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("SOCK", filepath.Join(env.WorkDir, "run/s.sock"))
	return os.WriteFile(filepath.Join(env.WorkDir, "c.toml"), []byte(conf), 0o644)
}

// exits STATUS COMMAND…: the command must exit with just that status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// await COMMAND…: repeated until it succeeds, for half a minute at most.
func await(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); (ts.Exec(args[0], args[1:]...) == nil) == neg; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("never: %v", args)
		}
	}
}

// stopagent SIGNAL: sends it to the agent whose pid status tells, and waits for
// the end of that (but for HUP).
func stopAgent(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("synward", "--socket", ts.Getenv("SOCK"), "status"))
	pid := 0
	for _, f := range strings.Split(ts.ReadFile("stdout"), "\n") {
		fmt.Sscanf(f, "agent      running, pid %d,", &pid)
	}
	sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP}[args[0]]
	if pid == 0 || sig == 0 {
		ts.Fatalf("no agent, or no signal %q", args[0])
	}
	ts.Check(syscall.Kill(pid, sig))
	for deadline := time.Now().Add(30 * time.Second); sig != syscall.SIGHUP && alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("the agent does not end on SIG%s", args[0])
		}
	}
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// replace FILE OLD NEW: the first OLD in a file becomes NEW.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	if !strings.Contains(string(b), args[1]) {
		ts.Fatalf("no %q in %s", args[1], args[0])
	}
	ts.Check(os.WriteFile(path, []byte(strings.Replace(string(b), args[1], args[2], 1)), 0o644))
}
