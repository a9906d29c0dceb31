package e2e

import (
	"net"
	"testing"

	"github.com/synward/synward/test/stage"
)

// TestCaps: what a source may have at once, and in a time, as the wire shows it.
func TestCaps(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	s.Client.Address("eth0", "192.0.2.11/24")

	must(t, s, "allow", "add", stage.ClientPrefix, "--ports", "587", "--max-conns", "3", "--rate", "0")
	var open []net.Conn
	for range 3 {
		open = append(open, greeted(t, s, ""))
	}
	// the fourth dies, and another source has a cap of its own
	heard(t, knock{s.Client, "192.0.2.10", stage.EdgeForClient, "587", "silence"}, knock{s.Client, "192.0.2.11", stage.EdgeForClient, "587", "greeting"})
	var e struct {
		Agree    bool
		Verdicts []struct {
			Verdict, Reason string
			Caps            struct{ Connections, Open int }
		}
	}
	ask(t, s, &e, "explain", stage.ClientAddr, "--port", "587")
	if v := e.Verdicts[0]; !e.Agree || v.Verdict != "drop" || v.Reason != "connection-cap" || v.Caps.Connections != 3 || v.Caps.Open != 3 {
		t.Errorf("explain at the cap: %+v", e)
	}
	open[0].Close()
	eventually(t, "the slot is free again", func() bool { return verdict(t, s, stage.ClientAddr, 587) == "pass" })
	greeted(t, s, "192.0.2.10").Close()
	for _, c := range open[1:] {
		c.Close()
	}

	// two at once, and the next after a long time
	must(t, s, "allow", "add", stage.ClientPrefix, "--ports", "587", "--rate", "1/h", "--burst", "2", "--shared")
	greeted(t, s, "192.0.2.10").Close()
	greeted(t, s, "192.0.2.11").Close()
	heard(t, knock{s.Client, "192.0.2.10", stage.EdgeForClient, "587", "silence"}, knock{s.Client, "192.0.2.11", stage.EdgeForClient, "587", "silence"})
	if n := counted(t, s, "rate-cap"); n < 2 {
		t.Errorf("%d attempts are counted as beyond the rate", n)
	}
}

// greeted is a connection to the relay that has been greeted.
func greeted(t *testing.T, s *stage.Stage, from string) net.Conn {
	t.Helper()
	c, err := s.Client.Dial(from, edge("587"), soon)
	if err == nil {
		_, err = c.Read(make([]byte, 512))
	}
	if err != nil {
		t.Fatalf("a connection within the caps: %v", err)
	}
	return c
}
