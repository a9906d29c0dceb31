// Command guest is the only program that a kernel under test starts with. It
// makes a system that the tests can live in, runs what /plan says, one command
// a line, and tells what came of it on the second serial port.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	out, err := start()
	if err == nil {
		err = follow("/plan", out)
	}
	if err != nil {
		fmt.Println("guest:", err) // the kernel's console
		fmt.Fprintln(out, "guest:", err)
	} else {
		fmt.Fprintln(out, "guest: end")
	}
	unix.Sync()
	time.Sleep(100 * time.Millisecond) // the serial port's last bytes
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// start mounts, loads the modules and opens the way out.
func start() (*os.File, error) {
	for _, m := range []struct{ what, where string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"bpf", "/sys/fs/bpf"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			return os.Stdout, err
		}
		if err := unix.Mount(m.what, m.where, m.what, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return os.Stdout, fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return os.Stdout, err
	}
	modules, err := filepath.Glob("/modules/*") // numbered, so in order
	if err != nil {
		return out, err
	}
	for _, m := range modules {
		data, err := os.ReadFile(m)
		if err != nil {
			return out, err
		}
		if err := unix.InitModule(data, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return out, fmt.Errorf("load %s: %w", m, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return out, err
	}
	return out, netlink.LinkSetUp(lo)
}

func follow(plan string, out *os.File) error {
	lines, err := os.ReadFile(plan)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(lines)) {
		args := strings.Fields(line)
		fmt.Fprintln(out, "guest: run", strings.Join(args, " "))
		began := time.Now()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = "/tmp", []string{"PATH=/", "HOME=/tmp"}
		cmd.Stdout, cmd.Stderr = out, out
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		code := cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		fmt.Fprintf(out, "guest: exit %d after %.1fs\n", code, time.Since(began).Seconds())
	}
	return nil
}
