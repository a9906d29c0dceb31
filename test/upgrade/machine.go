package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synward/synward/test/lab"
)

// story is the lab.T of a program: it ends by a panic, and tidies up.
type story struct{ cleanups []func() }

func (s *story) Helper() {}

func (s *story) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s *story) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *story) TempDir() string {
	dir, err := os.MkdirTemp("/var/tmp", "synward-upgrade-")
	if err != nil {
		s.Fatalf("make a folder: %v", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *story) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

func (s *story) step(format string, args ...any) { fmt.Printf("== "+format+"\n", args...) }

// machine is the root with its own systemd, in the edge's network namespace.
type machine struct {
	s      *story
	root   string
	pins   string // its /sys/fs/bpf, seen from here
	leader int    // its systemd
	rpm    bool   // the package is one, else a .deb
}

// boot starts systemd in the root and waits until it is up.
func boot(s *story, root, netns, from, to string) *machine {
	m := &machine{s: s, root: root, pins: lab.BPFFS(s), rpm: strings.HasSuffix(from, ".rpm")}
	m.copy(from, "root", "old.package")
	m.copy(to, "root", "new.package")
	cmd := exec.Command("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--directory="+root,
		"--network-namespace-path=/run/netns/"+netns, "--bind="+m.pins+":/sys/fs/bpf", "--bind-ro=/sys/kernel/btf",
		"--capability=all", "--system-call-filter=bpf perf_event_open keyctl", "--console=pipe")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Start(); err != nil {
		s.Fatalf("start systemd-nspawn: %v", err)
	}
	s.Cleanup(func() {
		// SIGRTMIN+4 to systemd means: power off.
		if m.leader > 0 {
			syscall.Kill(m.leader, syscall.Signal(38))
		}
		stop := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stop.Stop()
	})
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if m.leader == 0 {
			m.leader = childOf(cmd.Process.Pid)
		}
		out, _ := m.try("", "systemctl", "is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return m
		}
		if time.Now().After(deadline) {
			s.Fatalf("systemd does not come up:\n%s\n%s", console.String(), out)
		}
	}
}

// childOf is the first child of a process, 0 where it has none.
func childOf(pid int) (child int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	fmt.Sscan(string(b), &child)
	return child
}

// try runs a command in the machine.
func (m *machine) try(input string, args ...string) (string, error) {
	enter := []string{"--target", fmt.Sprint(m.leader), "--all", "--root", "--wd=/", "--", "env", "-C", "/root", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(input string, args ...string) string {
	out, err := m.try(input, args...)
	if err != nil {
		m.s.Fatalf("%s: %v\n%s\n%s", strings.Join(args, " "), err, out, m.log())
	}
	return out
}

// log is the end of synward's journal, without a line for every session.
func (m *machine) log() string {
	out, _ := m.try("", "journalctl", "-u", "synward", "--no-pager", "-n", "40", "-o", "cat", "-g", "^(?!session ended|accepted|delivery)")
	return out
}

func (m *machine) write(path, text string) {
	err := os.MkdirAll(filepath.Dir(filepath.Join(m.root, path)), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.root, path), []byte(text), 0o644)
	}
	if err != nil {
		m.s.Fatalf("write %s: %v", path, err)
	}
}

// install, upgrade and remove use the package's own tool. rpm knows nothing of
// what dpkg has put into this root: hence --nodeps.

func (m *machine) install() {
	if m.rpm {
		m.run("", "rpm", "--install", "--nodeps", "/root/old.package")
		return
	}
	m.run("", "dpkg", "-i", "/root/old.package")
}

func (m *machine) upgrade() {
	if m.rpm {
		m.run("", "rpm", "--upgrade", "--nodeps", "/root/new.package")
		return
	}
	m.run("", "dpkg", "-i", "--force-confold", "/root/new.package")
}

// version is the installed package's.
func (m *machine) version() string {
	if m.rpm {
		return m.run("", "rpm", "-q", "--queryformat", "%{VERSION}", "synward")
	}
	return m.run("", "dpkg-query", "-W", "-f", "${Version}", "synward")
}

// remove takes the package off and says what is left that should not be. rpm
// knows no purge: state, queue and a configuration that was changed stay.
func (m *machine) remove() error {
	gone := []string{"/usr/bin/synward", "/lib/systemd/system/synward.service", "/etc/systemd/system/multi-user.target.wants/synward.service"}
	if m.rpm {
		if text, err := os.ReadFile(filepath.Join(m.root, "etc/synward/synward.toml")); err != nil || string(text) != config {
			return fmt.Errorf("the upgrade has changed the configuration: %v\n%s", err, text)
		}
		m.run("", "rpm", "--erase", "synward")
	} else {
		m.run("", "dpkg", "-P", "synward")
		gone = append(gone, "/etc/synward", "/var/lib/synward", "/var/spool/synward", "/run/synward")
	}
	for _, path := range gone {
		if _, err := os.Lstat(filepath.Join(m.root, path)); err == nil {
			return fmt.Errorf("removing has left %s", path)
		}
	}
	if _, err := os.Lstat(filepath.Join(m.pins, "synward")); err == nil {
		return fmt.Errorf("removing has left the filter")
	}
	return nil
}
