package fdstore_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent/fdstore"
)

// TestMain lets the test binary be a process that systemd hands a socket to.
func TestMain(m *testing.M) {
	if os.Getenv("SYNWARD_TEST_FDS") == "" {
		os.Exit(m.Run())
	}
	s := fdstore.Open()
	f := s.Kept("listen-25")
	if f == nil || s.Kept("listen-25") != nil {
		fmt.Println("not there, or twice")
		os.Exit(1)
	}
	l, err := net.FileListener(f)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	if err := s.Forget(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// manager is the service manager's end of the notify socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// receive is one message and the file that came with it.
func receive(t *testing.T, c *net.UnixConn) (string, *os.File) {
	t.Helper()
	buf, oob := make([]byte, 512), make([]byte, 64)
	n, m, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if m == 0 {
		return string(buf[:n]), nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), os.NewFile(uintptr(fds[0]), "received")
}

func TestASocketGoesThroughTheServiceManager(t *testing.T) {
	c := manager(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := fdstore.Open().Keep("listen-25", file); err != nil {
		t.Fatal(err)
	}
	state, got := receive(t, c)
	if state != "FDSTORE=1\nFDPOLL=0\nFDNAME=listen-25" || got == nil {
		t.Fatalf("%q with %v", state, got)
	}
	addr := l.Addr().String()
	l.Close()
	// As systemd starts the next one: a socket that is asked for, and one that
	// is not.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "SYNWARD_TEST_FDS=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=listen-25:listen-99")
	cmd.ExtraFiles = []*os.File{got, file}
	out, err := cmd.CombinedOutput()
	if strings.TrimSpace(string(out)) != addr || err != nil {
		t.Errorf("the next process has %q (%v), want %s", out, err, addr)
	}
	if state, _ := receive(t, c); state != "FDSTOREREMOVE=1\nFDNAME=listen-99" {
		t.Errorf("the one that nobody wants: %q", state)
	}
}

func TestWithoutAServiceManagerNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("LISTEN_FDS", "3")
	t.Setenv("LISTEN_PID", "1") // another process's
	s := fdstore.Open()
	if f := s.Kept("listen-25"); f != nil {
		t.Error("took a descriptor that is another process's")
	}
	if err := s.Keep("listen-25", os.Stdin); err != nil {
		t.Error(err)
	}
	if err := s.Forget(); err != nil {
		t.Error(err)
	}
}
