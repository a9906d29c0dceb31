package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/synward/synward/test/stage"
)

// attempt is an agent that lacks one capability.
type attempt struct {
	*stage.Stage
	log  string
	pid  int
	done chan error
}

func (a *attempt) said() string {
	text, _ := os.ReadFile(a.log)
	return string(text)
}

// lacking starts an agent with all capabilities but one.
func lacking(t *testing.T, s *stage.Stage, capability string) *attempt {
	t.Helper()
	a := &attempt{Stage: s, log: filepath.Join(s.Dir, capability), done: make(chan error, 1)}
	log, err := os.Create(a.log) // not a pipe: the relay has it too
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := s.AgentCommand(t.Context(), strings.Replace(stage.Capabilities, capability, "", 1))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.pid = cmd.Process.Pid
	go func() { a.done <- cmd.Wait() }()
	return a
}

// TestEveryCapabilityIsNeeded: without any one of those that the unit leaves to
// the agent something fails, and what it says names the one that is missing.
func TestEveryCapabilityIsNeeded(t *testing.T) {
	t.Parallel()
	s := set(t, false)
	fails := map[string]func(*testing.T, *attempt){
		"CAP_BPF":              refuses("load the filter"),
		"CAP_NET_ADMIN":        refuses("load the filter"),
		"CAP_PERFMON":          refuses("load the filter"),
		"CAP_NET_BIND_SERVICE": refuses("listen on :587"),
		"CAP_CHOWN":            refuses("give spool to nobody"),
		"CAP_SETUID":           noRelay("CAP_SETUID"),
		"CAP_SETGID":           noRelay("CAP_SETGID"),
		"CAP_KILL":             relayStays,
	}
	for _, c := range strings.Fields(stage.Capabilities) {
		check, ok := fails[c]
		if !ok {
			t.Errorf("nothing shows that %s is needed", c)
			continue
		}
		t.Run(c, func(t *testing.T) {
			a := lacking(t, s, c)
			check(t, a)
			if !strings.Contains(a.said(), c) {
				t.Errorf("no word of %s:\n%s", c, a.said())
			}
		})
	}
}

// refuses is an agent that ends at once and says at what.
func refuses(at string) func(*testing.T, *attempt) {
	return func(t *testing.T, a *attempt) {
		if err := <-a.done; err == nil || !strings.Contains(a.said(), "synward: "+at) {
			t.Errorf("it ends with %v and says:\n%s", err, a.said())
		}
	}
}

// noRelay is an agent that runs, and cannot start its relay.
func noRelay(capability string) func(*testing.T, *attempt) {
	return func(t *testing.T, a *attempt) {
		eventually(t, "status says that the relay cannot be started", func() bool {
			out, _ := a.Synward("status")
			return strings.Contains(out, "not running") && strings.Contains(out, capability)
		})
		lacks(t, a.Stage, capability)
		end(t, a)
	}
}

// relayStays is an agent that cannot end its relay: the next one takes it over.
func relayStays(t *testing.T, a *attempt) {
	eventually(t, "the relay runs", a.Ready)
	lacks(t, a.Stage, "CAP_KILL")
	relay := a.RelayPID()
	end(t, a)
	a.StartAgent()
	if got := a.RelayPID(); relay == 0 || got != relay {
		t.Errorf("the next agent's relay is %d, not %d", got, relay)
	}
	if err := a.EndAgent(terminate); err != nil || strings.Contains(a.Log(), "CAP_KILL") {
		t.Errorf("an agent with CAP_KILL does not end the relay: %v", err)
	}
}

// end asks the agent to end, and waits.
func end(t *testing.T, a *attempt) {
	t.Helper()
	syscall.Kill(a.pid, terminate)
	if err := <-a.done; err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, a.said())
	}
}

// lacks wants the doctor to say so, with what mends it.
func lacks(t *testing.T, s *stage.Stage, capability string) {
	t.Helper()
	if f := finding(t, s, "capabilities"); f.Grade != "warn" || f.Text != "the agent lacks "+capability || f.Mend == "" {
		t.Errorf("the doctor says %+v", f)
	}
}
