package e2e

import (
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/synward/synward/test/stage"
)

const (
	kill      = syscall.SIGKILL
	terminate = syscall.SIGTERM
)

// TestExpiryWithTheAgentDead: the kernel ends an entry by itself, an allow as
// well as a deny.
func TestExpiryWithTheAgentDead(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	s.Client.Address("eth0", "192.0.2.11/24")
	at := func(from, port string) string {
		return stage.KnockFrom(s.Client, from, net.JoinHostPort(stage.EdgeForClient, port), silence)
	}
	must(t, s, "allow", "add", "192.0.2.0/28", "2001:db8:c::/64", "--ttl", "8s", "--ports", "587")
	must(t, s, "allow", "add", "192.0.2.0/24", "--ports", "25")
	must(t, s, "deny", "add", "192.0.2.11", "--ttl", "8s", "--ports", "25")
	if err := s.EndAgent(kill); err == nil {
		t.Error("the agent ends well by kill -9")
	}
	heard(t,
		knock{s.Client, "192.0.2.10", stage.EdgeForClient, "587", "greeting"},
		knock{s.Client, "", stage.EdgeForClient6, "587", "greeting"},
		knock{s.Client, "192.0.2.11", stage.EdgeForClient, "25", "silence"},
	)
	eventually(t, "the allow ends", func() bool { return at("192.0.2.10", "587") == "silence" })
	eventually(t, "the deny ends", func() bool { return strings.HasPrefix(at("192.0.2.11", "25"), "220 ") })
	heard(t,
		knock{s.Client, "", stage.EdgeForClient6, "587", "silence"},
		knock{s.Client, "192.0.2.10", stage.EdgeForClient, "25", "greeting"},
	)
	s.StartAgent()
	if out := must(t, s, "allow", "list", "--expired"); !strings.Contains(out, "192.0.2.0/28") {
		t.Errorf("allow list --expired: %s", out)
	}
	if got := prefixes(t, s); got != "192.0.2.0/24" {
		t.Errorf("in force are %s", got)
	}
}

// TestAgentThatHangs: the filter goes on, and what it does can be seen.
func TestAgentThatHangs(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "allow", "add", stage.ClientPrefix)
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(s.AgentPID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	heard(t,
		knock{s.Client, "", stage.EdgeForClient, "587", "greeting"},
		knock{s.Stranger, "", stage.EdgeForStranger, "25", "silence"},
	)
	r := s.Run("", "status")
	if r.Code != 0 || !strings.Contains(r.Err, "does not answer") || !strings.Contains(r.Err, "systemctl restart synward") ||
		!strings.Contains(r.Out, "agent      down") || !strings.Contains(r.Out, "no-entry") {
		t.Errorf("status: exit status %d\n%s%s", r.Code, r.Out, r.Err)
	}
	if r := s.Run("", "doctor"); r.Code != 1 || !strings.Contains(r.Out, "it hangs") {
		t.Errorf("doctor: exit status %d\n%s%s", r.Code, r.Out, r.Err)
	}
	signal(syscall.SIGCONT)
	if out := must(t, s, "status"); !strings.Contains(out, "agent      running") {
		t.Errorf("going on, status says:\n%s", out)
	}
}

// TestDeaths: whoever dies, strangers stay out and mail flows.
func TestDeaths(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "user", "add", "alice")
	must(t, s, "allow", "add", stage.ClientPrefix, "2001:db8:c::/64")
	everybody := []knock{
		{s.Client, "", stage.EdgeForClient, "587", "greeting"},
		{s.Client, "", stage.EdgeForClient6, "465", "greeting"},
		{s.Stranger, "", stage.EdgeForStranger, "25", "silence"},
		{s.Stranger, "", stage.EdgeForStrange6, "587", "silence"},
	}
	mail := func(when string) {
		t.Helper()
		if err := s.Submit(s.Client, edge("587"), letter(when)); err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		// by its subject: a relay that is killed may have sent what it has
		// not noted down yet, and that comes twice
		eventually(t, when+": the mail arrives", func() bool {
			return slices.ContainsFunc(s.Sink.Mails(), func(m stage.Mail) bool { return strings.Contains(m.Data, "Subject: "+when+"\r\n") })
		})
	}
	heard(t, everybody...)
	mail("all is well")
	passed := counted(t, s, "allowed")

	relay := s.RelayPID()
	_ = s.EndAgent(kill)
	heard(t, everybody...)
	mail("the agent is dead")
	if r := s.Run("", "status"); r.Code != 0 || !strings.Contains(r.Out, "down") || !strings.Contains(r.Out, "eth0 (native)") || r.Err == "" {
		t.Errorf("status with the agent dead: %+v", r)
	}

	s.StartAgent()
	if got := s.RelayPID(); got != relay {
		t.Errorf("the relay is %d, was %d: not taken over", got, relay)
	}
	heard(t, everybody...)
	mail("a new agent")
	if now := counted(t, s, "allowed"); now <= passed {
		t.Errorf("the counters start anew: %d, were %d", now, passed)
	}

	// The relay dies: its listeners are the agent's too, and who comes
	// meanwhile waits. The adopted one was the only holder; see the second.
	for _, when := range []string{"the adopted relay is dead", "the relay is dead"} {
		old := s.RelayPID()
		if err := s.KillRelay(); err != nil {
			t.Fatal(err)
		}
		if when == "the relay is dead" {
			if got := stage.Knock(s.Client, edge("587"), soon); !strings.HasPrefix(got, "220 ") {
				t.Errorf("who comes while the relay is dead hears %q", got)
			}
		}
		eventually(t, "another relay", func() bool { pid := s.RelayPID(); return pid != 0 && pid != old && s.Ready() })
		mail(when)
	}
	heard(t, everybody...)

	if err := s.EndAgent(terminate); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if got := filtered(t, s); got != "eth0 eth1" {
		t.Errorf("after SIGTERM the filter is on %q", got)
	}
	heard(t,
		knock{s.Client, "", stage.EdgeForClient, "587", "refused"}, // allowed, but nobody listens
		knock{s.Stranger, "", stage.EdgeForStranger, "587", "silence"},
	)
	must(t, s, "unload", "--dry-run")
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "25", "silence"})
	must(t, s, "unload")
	if got := filtered(t, s); got != "" {
		t.Errorf("after unload the filter is on %q", got)
	}
	if _, err := os.Stat(s.PinDir); err == nil {
		t.Error("after unload the pins are there")
	}
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "587", "refused"})
	s.StartAgent() // the policy is in the store
	heard(t, everybody...)
}

// counted is the sum of the packets that were counted for a reason.
func counted(t *testing.T, s *stage.Stage, reason string) (sum int) {
	t.Helper()
	var st struct {
		Filter struct {
			Counters []struct {
				Reason  string
				Packets int
			}
		}
	}
	ask(t, s, &st, "status")
	for _, c := range st.Filter.Counters {
		if c.Reason == reason {
			sum += c.Packets
		}
	}
	return sum
}
