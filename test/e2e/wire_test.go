package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/test/lab"
	"github.com/synward/synward/test/stage"
)

// TestStrangerMeetsSilence: not a packet comes back, whatever the way.
func TestStrangerMeetsSilence(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "allow", "add", stage.ClientPrefix)
	var knocks []knock
	for _, port := range []string{"25", "465", "587"} {
		knocks = append(knocks,
			knock{s.Stranger, "", stage.EdgeForStranger, port, "silence"},
			knock{s.Stranger, "", stage.EdgeForStrange6, port, "silence"})
	}
	stop := capture(t, s.Stranger, "eth0")
	heard(t, knocks...)
	// as proof that the capture sees: a port that nobody protects answers
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "2525", "refused"}, knock{s.Stranger, "", stage.EdgeForStrange6, "2525", "refused"})
	seen := stop()
	if len(seen) != 2 || !slices.ContainsFunc(seen, func(p string) bool { return strings.Contains(p, "IPv6") }) {
		t.Errorf("the stranger has been sent %q, want the two RSTs of port 2525", seen)
	}
	var st struct {
		Filter struct {
			Counters []struct {
				Port    uint16
				Reason  string
				Packets int
			}
		}
	}
	ask(t, s, &st, "status")
	for _, c := range st.Filter.Counters {
		if c.Reason == "no-entry" && c.Packets < 2 {
			t.Errorf("port %d has counted %d drops", c.Port, c.Packets)
		}
	}
}

// capture notes the TCP and ICMP packets that come to an interface, but for
// those of neighbour discovery, until the returned function is called.
func capture(t *testing.T, h *lab.Host, name string) (stop func() []string) {
	t.Helper()
	var fd int
	h.Do(func() (err error) {
		ifc, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		all := int(uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all); err != nil {
			return err
		}
		tick := unix.Timeval{Usec: 50_000}
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifc.Index}))
	})
	var seen []string
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer unix.Close(fd)
		frame := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, frame, 0)
			if err == nil { // up to the last frame, before the end counts
				l, ok := from.(*unix.SockaddrLinklayer)
				if what := describe(frame[:n]); ok && l.Pkttype != unix.PACKET_OUTGOING && what != "" {
					seen = append(seen, what)
				}
				continue
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	return sync.OnceValue(func() []string {
		close(end)
		<-ended
		return seen
	})
}

// describe names a frame that would be an answer; "" for any other.
func describe(f []byte) string {
	if len(f) < 14+40 {
		return ""
	}
	ip := f[14:]
	switch kind := binary.BigEndian.Uint16(f[12:]); {
	case kind == unix.ETH_P_IP && (ip[9] == unix.IPPROTO_TCP || ip[9] == unix.IPPROTO_ICMP):
		return fmt.Sprintf("IPv4 protocol %d", ip[9])
	case kind == unix.ETH_P_IPV6 && ip[6] == unix.IPPROTO_TCP:
		return "IPv6 TCP"
	case kind == unix.ETH_P_IPV6 && ip[6] == unix.IPPROTO_ICMPV6 && ip[40] < 130: // from 130 on: neighbours, multicast
		return fmt.Sprintf("IPv6 ICMP type %d", ip[40])
	}
	return ""
}

// TestHostIsUntouched: with nobody allowed, all but the protected ports works
// both ways, over the very interface that the filter is on.
func TestHostIsUntouched(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	s.Edge.Listen(":22")
	s.Edge.Listen(":443")
	for _, port := range []string{"22", "25", "587"} {
		s.Stranger.Listen(":" + port)
	}
	heard(t,
		knock{s.Stranger, "", stage.EdgeForStranger, "22", "greeting"},
		knock{s.Stranger, "", stage.EdgeForStrange6, "443", "greeting"},
		knock{s.Stranger, "", stage.EdgeForStranger, "587", "silence"},
		// the host's own way out: SMTP to others, and SSH
		knock{s.Edge, "", stage.StrangerAddr, "25", "greeting"},
		knock{s.Edge, "", stage.StrangerAddr, "587", "greeting"},
		knock{s.Edge, "", stage.StrangerAddr6, "25", "greeting"},
		knock{s.Edge, "", stage.StrangerAddr, "22", "greeting"},
		// and to itself
		knock{s.Edge, "", "127.0.0.1", "587", "greeting"},
	)
	// a client whose own port is a protected one
	c, err := dialFromPort(s.Stranger, 465, net.JoinHostPort(stage.EdgeForStranger, "22"))
	if err != nil {
		t.Errorf("SSH from source port 465: %v", err)
	} else {
		c.Close()
	}
	echo(t, s)
}

func dialFromPort(h *lab.Host, port int, to string) (c net.Conn, err error) {
	err = h.Try(func() (err error) {
		d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(stage.StrangerAddr), Port: port}}
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// echo sends UDP to the numbers of the protected ports and wants it back.
func echo(t *testing.T, s *stage.Stage) {
	t.Helper()
	var server, client net.PacketConn
	s.Edge.Do(func() (err error) { server, err = net.ListenPacket("udp", ":587"); return err })
	s.Stranger.Do(func() (err error) { client, err = net.ListenPacket("udp", ":0"); return err })
	defer server.Close()
	defer client.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	// 3,000 bytes: in fragments, of which the later ones show no port
	sent, buf := make([]byte, 3000), make([]byte, 4096)
	_ = client.SetDeadline(time.Now().Add(soon))
	for _, to := range []string{stage.EdgeForStranger, stage.EdgeForStrange6} {
		if _, err := client.WriteTo(sent, &net.UDPAddr{IP: net.ParseIP(to), Port: 587}); err != nil {
			t.Fatal(err)
		}
		if n, _, err := client.ReadFrom(buf); err != nil || n != len(sent) {
			t.Errorf("UDP to %s: %d bytes back, %v", to, n, err)
		}
	}
}

// TestExplainAgreesWithTheWire asks explain and then knocks, for many sources
// under a policy with holes, expiries and both families.
func TestExplainAgreesWithTheWire(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	var addrs []netip.Addr
	for i := range 8 {
		a4, a6 := netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:c::a%d:1", i))
		s.Client.Address("eth0", a4.String()+"/24", a6.String()+"/64")
		addrs = append(addrs, a4, a6)
	}
	r := s.Run(`allow 192.0.2.0/24   587
deny  192.0.2.102/31 587
allow 192.0.2.103
deny  192.0.2.104/29
allow 192.0.2.106/32 25,465
allow 2001:db8:c::/64 25,587
deny  2001:db8:c::a4:0/110
deny  2001:db8:c::a2:1 25
allow 2001:db8:c::a5:1 465
allow ::/0 465 expires=2001-01-01T00:00:00Z
`, "policy", "apply", "-")
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	var knocks []knock
	sum := map[string]int{}
	for _, a := range addrs {
		to := stage.EdgeForClient
		if a.Is6() {
			to = stage.EdgeForClient6
		}
		var e struct {
			Verdicts []struct {
				Port    uint16
				Verdict string
			}
		}
		ask(t, s, &e, "explain", a.String())
		for _, v := range e.Verdicts {
			want := map[string]string{"pass": "greeting", "drop": "silence"}[v.Verdict]
			knocks = append(knocks, knock{s.Client, a.String(), to, fmt.Sprint(v.Port), want})
			sum[v.Verdict]++
		}
	}
	if len(knocks) != 48 || sum["pass"] < 10 || sum["drop"] < 10 {
		t.Errorf("%d verdicts, %v: the policy shows too little", len(knocks), sum)
	}
	heard(t, knocks...)
}
