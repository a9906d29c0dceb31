package e2e

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/test/lab"
	"github.com/synward/synward/test/stage"
)

// TestServerElsewhere: a server in a container behind the edge, as a container
// runtime publishes its port, has caps as exact as the edge's own; across a
// killed agent, too.
func TestServerElsewhere(t *testing.T) {
	t.Parallel()
	if err := stage.LookAtSources("agent", "cmd", "loader", "relay"); err != nil {
		t.Fatalf("look at the sources: %v", err)
	}
	s := stage.New(t, os.Getenv(binDir), "[ports.2525]\nserver = \"elsewhere\"\n[ports.587]\n")
	box := container(t, s)
	held := hold(t, box)
	s.StartAgent()
	must(t, s, "allow", "add", stage.ClientPrefix, "--max-conns", "3", "--rate", "0")

	var open []net.Conn
	for range 3 {
		c, err := s.Client.Dial("", edge("2525"), soon)
		if err != nil {
			t.Fatalf("a connection within the cap: %v", err)
		}
		open = append(open, c)
	}
	eventually(t, "the server holds three", func() bool { return held.Load() == 3 })
	full := func() bool { return verdict(t, s, stage.ClientAddr, 2525) == "drop" }
	if !full() {
		t.Error("three connections to the container, and the cap of three is not reached")
	}
	if out := must(t, s, "status"); !strings.Contains(out, "eth0 (native, egress ") || strings.Contains(out, "not seen") {
		t.Errorf("status with egress watched: %s", out)
	}
	_ = s.EndAgent(syscall.SIGKILL)
	if c, err := s.Client.Dial("", edge("2525"), silence); err == nil {
		c.Close()
		t.Error("a fourth connection came through a cap of three while no agent was there")
	}
	open[0].Close()
	s.StartAgent()
	eventually(t, "the slot that was left meanwhile is free", func() bool { return !full() })
	for _, c := range open[1:] {
		c.Close()
	}
	eventually(t, "the server holds none", func() bool { return held.Load() == 0 })
}

// container is a host behind the edge whose port 25 the edge publishes as 2525.
func container(t *testing.T, s *stage.Stage) *lab.Host {
	t.Helper()
	box := lab.NewHost(t, "container")
	lab.Connect(s.Edge, "ct0", box, "eth0")
	s.Edge.Address("ct0", "10.9.0.1/24")
	box.Address("eth0", "10.9.0.2/24")
	box.Do(func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 9, 0, 1)}) })
	s.Edge.Do(func() error { return s.Edge.Sysctl("net/ipv4/ip_forward", "1") })
	nft := s.Edge.Command(t.Context(), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table ip published {
	chain in { type nat hook prerouting priority dstnat; tcp dport 2525 dnat to 10.9.0.2:25; }
}`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("publish a port: %v\n%s", err, out)
	}
	return box
}

// hold serves port 25 of a host, keeps each connection until its client closes
// it, and counts those that it has.
func hold(t *testing.T, h *lab.Host) *atomic.Int32 {
	t.Helper()
	l := h.ListenRaw(":25")
	held := &atomic.Int32{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held.Add(1)
			go func() {
				defer held.Add(-1)
				defer c.Close()
				_, _ = c.Write([]byte("220 container\r\n"))
				for {
					if _, err := c.Read(make([]byte, 512)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return held
}
