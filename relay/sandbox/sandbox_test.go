package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test runs itself again as an unprivileged user: that process shuts
// itself in, tries what it must not and what it must, and prints what happened.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SYNWARD_TEST_SANDBOX"); dir != "" {
		inside(dir)
		return
	}
	os.Exit(m.Run())
}

// result is what the process inside found: the error of each attempt, or "".
type result struct {
	Report Report
	Enter  string
	Tried  map[string]string
}

func inside(dir string) {
	r := result{Tried: map[string]string{}}
	report, err := Enter(filepath.Join(dir, "spool"))
	r.Report, r.Enter = report, text(err)
	for name, try := range attempts(dir) {
		r.Tried[name] = text(try())
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(1)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// attempts are the deeds, by name; those that must work begin with "may".
func attempts(dir string) map[string]func() error {
	read := func(p string) func() error {
		return func() error { _, err := os.ReadFile(p); return err }
	}
	write := func(p string) func() error {
		return func() error { return os.WriteFile(p, []byte("x"), 0o600) }
	}
	return map[string]func() error{
		"may write in the spool":   write(filepath.Join(dir, "spool", "new")),
		"may make a folder there":  func() error { return os.Mkdir(filepath.Join(dir, "spool", "sub"), 0o700) },
		"may read /etc/hosts":      read("/etc/hosts"),
		"may connect":              connect,
		"may start threads":        threads,
		"read /etc/shadow":         read("/etc/shadow"),
		"read /etc/passwd":         read("/etc/passwd"), // which its user may read
		"read beside the spool":    read(filepath.Join(dir, "open")),
		"write beside the spool":   write(filepath.Join(dir, "open")),
		"make a file beside it":    write(filepath.Join(dir, "other")),
		"run a program":            func() error { return exec.Command("/bin/true").Run() },
		"open a netlink socket":    socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"open a packet socket":     socket(unix.AF_PACKET, unix.SOCK_RAW),
		"load an eBPF map":         func() error { return call(unix.SYS_BPF, 0, 0, 0) },
		"trace a process":          func() error { return call(unix.SYS_PTRACE, 0, 0, 0) },
		"make a user namespace":    func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"set up io_uring":          uring,
		"bind a TCP port":          bind,
		"signal the parent":        func() error { return unix.Kill(os.Getppid(), 0) },
		"link a file of elsewhere": func() error { return os.Link(filepath.Join(dir, "open"), filepath.Join(dir, "spool", "l")) },
	}
}

func socket(domain, kind int) func() error {
	return func() error {
		fd, err := unix.Socket(domain, kind, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func call(nr, a, b, c uintptr) error {
	_, _, errno := unix.Syscall(nr, a, b, c)
	if errno == unix.EPERM {
		return errno
	}
	return nil // any other errno: the kernel has looked at it
}

func uring() error {
	var params [120]byte
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// bind takes a plain TCP socket: Landlock does not see MPTCP, which Go listens
// with by default.
func bind() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 18025, Addr: [4]byte{127, 0, 0, 1}})
}

func connect() error {
	_, err := net.Dial("tcp", "127.0.0.1:1")
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil // as far as the network
	}
	return fmt.Errorf("connect: %w", err)
}

func threads() error {
	for range 20 {
		done := make(chan struct{})
		go func() { defer close(done); syscall.Getpid() }()
		<-done
	}
	return nil
}

func TestInside(t *testing.T) {
	dir, err := os.MkdirTemp("", "synward-sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := reexec(t, dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run inside: %v", err)
	}
	var r result
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if r.Enter != "" || !r.Report.NoNewPrivs || r.Report.Seccomp != "on" {
		t.Fatalf("enter: %q, %+v", r.Enter, r.Report)
	}
	byLandlock := map[string]bool{"read /etc/passwd": true, "read beside the spool": true, "write beside the spool": true,
		"make a file beside it": true, "bind a TCP port": true, "signal the parent": true, "link a file of elsewhere": true}
	for name, got := range r.Tried {
		may := len(name) > 4 && name[:4] == "may "
		switch {
		case may && got != "":
			t.Errorf("it may not %s: %s", name[4:], got)
		case !may && got == "" && byLandlock[name] && r.Report.Landlock == "not in this kernel":
			t.Logf("without Landlock it can %s", name)
		case !may && got == "":
			t.Errorf("it can %s", name)
		}
	}
	t.Logf("%+v", r.Report)
}

// reexec prepares this test's binary to run inside, unprivileged, with a spool
// and an open file in dir.
func reexec(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Mkdir(filepath.Join(dir, "spool"), 0o700),
		os.WriteFile(filepath.Join(dir, "open"), []byte("x"), 0o666), os.Chmod(filepath.Join(dir, "open"), 0o666)); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "inside")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = []string{"SYNWARD_TEST_SANDBOX=" + dir}
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := os.Chown(filepath.Join(dir, "spool"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

func TestRootIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: nothing to refuse")
		return
	}
	if _, err := Enter(t.TempDir()); !errors.Is(err, ErrRoot) {
		t.Errorf("Enter as root: %v", err)
	}
}
