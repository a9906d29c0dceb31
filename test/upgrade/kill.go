package main

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// hold is a drop-in for the time of a test alone: /run forgets it.
const hold = "/run/systemd/system/synward.service.d/hold.conf"

// kill ends the agent with -9 and keeps systemd from starting the next one until
// the traffic has gone on without. Then systemd does so by itself.
func (s *story) kill(m *machine, t *traffic) error {
	m.run("", "mkdir", "-p", path.Dir(hold))
	m.run("[Service]\nRestartSec=1h\n", "tee", hold)
	m.run("", "systemctl", "daemon-reload")
	return s.outlive(m, func() error {
		m.run("", "systemctl", "kill", "-s", "KILL", "--kill-who=main", "synward")
		before := t.total()
		s.step("the agent is killed: %s", t.await(before+20))
		if out := m.run("", "synward", "status"); !strings.Contains(out, "agent      down") || t.total() < before+20 {
			return fmt.Errorf("with no agent there were %d knocks and mails, and status says:\n%s", t.total()-before, out)
		}
		m.run("", "rm", hold)
		m.run("", "systemctl", "daemon-reload") // RestartSec counts again, from the kill
		return nil
	})
}

// hang stops the agent where it is: systemd misses its word, ends it, and starts
// the next one. The traffic does not notice.
func (s *story) hang(m *machine, t *traffic) error {
	return s.outlive(m, func() error {
		before := t.total()
		m.run("", "systemctl", "kill", "-s", "STOP", "--kill-who=main", "synward")
		s.step("the agent hangs: %s", t.await(before+20))
		if t.total() < before+20 {
			return fmt.Errorf("with an agent that hangs there were %d knocks and mails", t.total()-before)
		}
		return nil
	})
}

// outlive wants another agent to run after its end, and the same relay.
func (s *story) outlive(m *machine, end func() error) error {
	agent := func() string { return m.run("", "systemctl", "show", "-P", "MainPID", "synward") }
	relay, was := m.run("", "pgrep", "-x", "synward-relay"), agent()
	if err := end(); err != nil {
		return err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if out, _ := m.try("", "synward", "status"); agent() != was && strings.Contains(out, "agent      running") {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("systemd does not start the agent again:\n%s", m.log())
		}
	}
	if now := m.run("", "pgrep", "-x", "synward-relay"); now != relay {
		return fmt.Errorf("the relay did not outlive the agent: %s became %s", strings.TrimSpace(relay), strings.TrimSpace(now))
	}
	return nil
}
