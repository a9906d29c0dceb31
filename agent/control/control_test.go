package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be a client under another uid as well.
func TestMain(m *testing.M) {
	if socket := os.Getenv("SYNWARD_TEST_SOCKET"); socket != "" {
		_, err := NewClient(socket).Do(context.Background(), http.MethodGet, "/v1/who", nil, nil, nil)
		var refused *Error
		if errors.As(err, &refused) {
			os.Exit(refused.Status - 400)
		}
		if err != nil {
			os.Exit(99)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(t *testing.T, o Options, routes ...Route) *Client {
	t.Helper()
	if o.Socket == "" {
		o.Socket = filepath.Join(t.TempDir(), "s.sock")
	}
	o.Log = slog.New(slog.DiscardHandler)
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, routes) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Stat(o.Socket); err == nil {
			t.Error("the socket is left behind")
		}
	})
	return NewClient(o.Socket)
}

var who = Route{Pattern: "GET /v1/who", Handler: func(r *http.Request) (any, error) {
	return CallerOf(r.Context()).UID, nil
}}

func TestCallerIsTheKernelsWord(t *testing.T) {
	c := serve(t, Options{Group: "root"}, who)
	var uid int
	if _, err := c.Do(t.Context(), http.MethodGet, "/v1/who", nil, &uid, Header{"X-UID": "7"}); err != nil || uid != os.Getuid() {
		t.Errorf("uid %d, %v, want %d", uid, err, os.Getuid())
	}
}

func TestErrorsKeepStatusAndLine(t *testing.T) {
	c := serve(t, Options{Group: "root"},
		Route{Pattern: "GET /v1/bad", Handler: func(*http.Request) (any, error) { return nil, Errorf(400, "bad %s", "port") }},
		Route{Pattern: "GET /v1/fail", Handler: func(*http.Request) (any, error) { return nil, errors.Join(errors.New("one"), errors.New("two")) }},
		Route{Pattern: "POST /v1/strict", Handler: func(r *http.Request) (any, error) { return nil, Decode(r, &struct{}{}) }},
	)
	for path, want := range map[string]Error{
		"GET /v1/bad":     {400, "bad port"},
		"GET /v1/fail":    {500, "one; two"},
		"GET /v1/none":    {404, "no request GET /v1/none; is the agent older than this command?"},
		"POST /v1/strict": {400, `read request: json: unknown field "new"`},
	} {
		method, p, _ := strings.Cut(path, " ")
		var in any
		if method == "POST" {
			in = map[string]int{"new": 1}
		}
		_, err := c.Do(t.Context(), method, p, in, nil, nil)
		var got *Error
		if !errors.As(err, &got) || *got != want {
			t.Errorf("%s: %+v, want %+v", path, err, want)
		}
	}
}

func TestStreamArrivesLineByLine(t *testing.T) {
	next := make(chan int)
	c := serve(t, Options{Group: "root"}, Route{Pattern: "GET /v1/lines", Handler: func(*http.Request) (any, error) {
		return Stream(func(ctx context.Context, emit func(any) error) error {
			for n := range next {
				if err := emit(n); err != nil {
					return err
				}
			}
			return nil
		}), nil
	}})
	got := 0
	go func() { next <- 1 }()
	err := c.Lines(t.Context(), "/v1/lines", func(line json.RawMessage) error {
		got++
		if got == 3 {
			close(next)
			return nil
		}
		go func() { next <- got }() // sent only once the line before it has come
		return nil
	})
	if err != nil || got != 3 {
		t.Errorf("%d lines, %v", got, err)
	}
}

// A stranger gets 403 even where the socket's mode would let him in; so does
// the relay's user whatever its groups.
func TestStrangersAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it becomes other users")
	}
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "client")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(bin, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s.sock")
	const group, relay, other = 4242, 4243, 4244
	serve(t, Options{Socket: socket, Group: "root", Relay: func() (uint32, bool) { return relay, true }}, who)
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		uid, gid uint32
		want     int
	}{
		"root":                  {0, 0, 0},
		"member of the group":   {other, 0, 0},
		"stranger":              {other, group, 3},
		"relay's user in group": {relay, 0, 3},
	} {
		cmd := exec.Command(bin)
		cmd.Env = []string{"SYNWARD_TEST_SOCKET=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.gid}}
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%s: status %d, want %d", name, 400+got, 400+c.want)
		}
	}
}

func TestListenSparesTheLiving(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	o := Options{Socket: socket, Group: "root", Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(o); err == nil {
		t.Fatal("took the socket of a living listener")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(o)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	defer s.Close()
	fi, err := os.Stat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", fi.Mode().Perm(), err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Socket = file
	if _, err := Listen(o); err == nil {
		t.Error("replaced a file that is no socket")
	}
}

func TestDownIsSaid(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Do(t.Context(), http.MethodGet, "/v1/who", nil, nil, nil)
	if !errors.Is(err, ErrDown) || !strings.Contains(err.Error(), "systemctl start synward") {
		t.Errorf("error %v", err)
	}
}
