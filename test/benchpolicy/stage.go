package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/synward/synward/test/lab"
)

// stage is a protected host with an agent, and a client on a wire to it. It is
// what the lab wants of a test, for a program.
type stage struct {
	lab.Scene
	ctx    context.Context
	bin    string
	dir    string
	pins   string
	host   *lab.Host
	client *lab.Host
	agent  *exec.Cmd
	ended  chan error
}

// TempDir is a folder for this run.
func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("/var/tmp", "synward-bench-policy-")
	if err != nil {
		s.Fatalf("make a folder: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// build makes the hosts and the configuration.
func (s *stage) build() {
	s.dir, s.pins = s.TempDir(), filepath.Join(lab.BPFFS(s), "synward")
	s.host, s.client = lab.NewHost(s, "polhost"), lab.NewHost(s, "polclient")
	lab.Connect(s.host, "eth0", s.client, "eth0")
	s.host.Address("eth0", serverAddr+"/15")
	s.client.Address("eth0", clientAddr+"/15")
	s.host.Listen(serverAddr + ":25")
	config := fmt.Sprintf("[filter]\ninterfaces = [\"eth0\"]\npin_dir = %q\n[store]\npath = %q\n[control]\nsocket = %q\n[caps]\nrate = \"0\"\nconnections = 0\n",
		s.pins, filepath.Join(s.dir, "state", "store.db"), s.socket())
	if err := os.WriteFile(s.config(), []byte(config), 0o644); err != nil {
		s.Fatalf("write the configuration: %w", err)
	}
	s.Cleanup(func() {
		s.stop()
		s.synward("", "unload")
	})
}

func (s *stage) config() string { return filepath.Join(s.dir, "synward.toml") }

func (s *stage) socket() string { return filepath.Join(s.dir, "control.sock") }

// start starts the agent, and returns how long it took until it answered.
func (s *stage) start() time.Duration {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.Fatalf("make a log: %w", err)
	}
	defer log.Close()
	began := time.Now()
	s.agent = s.host.Command(context.Background(), s.bin, "--config", s.config(), "agent")
	s.agent.Stdout, s.agent.Stderr = log, log
	if err := s.agent.Start(); err != nil {
		s.Fatalf("start the agent: %w", err)
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.agent, s.ended)
	for time.Since(began) < 2*time.Minute && s.ctx.Err() == nil {
		select {
		case err := <-s.ended:
			s.agent = nil
			s.Fatalf("the agent ended: %v\n%s", err, s.log())
		case <-time.After(20 * time.Millisecond):
		}
		if _, err := s.synward("", "explain", clientAddr); err == nil { // status also works without an agent
			return time.Since(began)
		}
	}
	s.Fatalf("the agent does not answer\n%s", s.log())
	return 0
}

func (s *stage) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop ends the agent as systemd does.
func (s *stage) stop() {
	if s.agent == nil {
		return
	}
	_ = s.agent.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		_ = s.agent.Process.Kill()
		<-s.ended
	}
	s.agent = nil
}

// synward runs a command, and returns how long it took from its start to its end.
func (s *stage) synward(input string, args ...string) (time.Duration, error) {
	cmd := exec.Command(s.bin, append([]string{"--config", s.config()}, args...)...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &errs
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("synward %s: %w: %.400s", strings.Join(args, " "), err, errs.String())
	}
	return took, s.ctx.Err()
}

// memory is a line of the agent's /proc/PID/status, in MiB: VmRSS, VmHWM, RssAnon.
func (s *stage) memory(key string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.agent.Process.Pid))
	if err != nil {
		s.Fatalf("read the agent's memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key+":" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				s.Fatalf("read the agent's memory: %w", err)
			}
			return kib / 1024
		}
	}
	s.Fatalf("the agent's status has no %s", key)
	return 0
}

// cpu is what the agent has used so far, in hundredths of a second.
func (s *stage) cpu() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.agent.Process.Pid))
	if err != nil {
		s.Fatalf("read the agent's times: %w", err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name may hold anything
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		s.Fatalf("read the agent's times: %w", err)
	}
	return user + system
}
