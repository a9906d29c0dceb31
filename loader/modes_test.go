package loader_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// setPort gives port 25 other manners and allows 192.0.2.2 and 2001:db8::2.
func (e *edge) setPort(t *testing.T, p rule.Port, limits rule.Limits) {
	t.Helper()
	p.Number = 25
	if p.Default == 0 {
		p.Default = rule.Drop
	}
	steps := []rule.Step{{Ports: [8]uint64{100}}}
	if _, err := e.filter.Sync(rule.Policy{
		Ports: []rule.Port{p}, IPv6Prefix: 64,
		Entries: slices.Values([]rule.Entry{{ID: 100, Verdict: rule.Pass, Limits: limits}}),
		Rules: slices.Values([]rule.Rule{
			{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Steps: steps},
			{Prefix: netip.MustParsePrefix("2001:db8::/64"), Steps: steps},
		}),
	}); err != nil {
		t.Fatal(err)
	}
}

func (e *edge) dialError(src, to string) error {
	c, err := e.peer.Dial(src, to, patience)
	if err == nil {
		c.Close()
	}
	return err
}

func TestRefuseByReset(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.peer.PassAll("eth0")
	e.Listen("[::]:25")
	e.setPort(t, rule.Port{Reset: true}, rule.Limits{})
	if err := e.dialError("192.0.2.3", "192.0.2.1:25"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a stranger on a port that refuses by RST: %v", err)
	}
	e.Address("eth0", "2001:db8:9::1/64")
	e.peer.Address("eth0", "2001:db8:9::3/64")
	if err := e.dialError("2001:db8:9::3", "[2001:db8:9::1]:25"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a stranger by IPv6: %v", err)
	}
	if err := e.dialError("192.0.2.2", "192.0.2.1:25"); err != nil {
		t.Errorf("the allowed source: %v", err)
	}
}

func TestObserveDropsNothingAndCounts(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	e.setPort(t, rule.Port{Observe: true}, rule.Limits{})
	if err := e.dialError("192.0.2.3", "192.0.2.1:25"); err != nil {
		t.Errorf("a stranger on a port that only observes: %v", err)
	}
	counters, err := e.filter.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(counters, func(c loader.Counter) bool {
		return c.Port == 25 && c.Reason == loader.NoEntry && c.Observed && c.Packets > 0
	}) {
		t.Errorf("what would have been dropped was not counted: %+v", counters)
	}
}

func TestDefaultPassWithCaps(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.peer.PassAll("eth0")
	serve(e.Host, t, "192.0.2.1:25")
	e.setPort(t, rule.Port{Default: rule.Pass, Limits: rule.Limits{Conns: 3}}, rule.Limits{Conns: 5})
	if n := len(e.burst(t, "192.0.2.3", 20)); n != 3 {
		t.Errorf("%d connections of a source without an entry, the port's cap is 3", n)
	}
	if n := len(e.burst(t, "192.0.2.2", 20)); n != 5 {
		t.Errorf("%d connections of a source whose entry allows 5", n)
	}
}

func TestSharedCap(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.peer.PassAll("eth0")
	serve(e.Host, t, "[::]:25")
	e.setPort(t, rule.Port{}, rule.Limits{Conns: 6, Shared: true})
	four := len(e.burst(t, "192.0.2.2", 4))
	var rest int
	for range 10 {
		if c, err := e.peer.Dial("2001:db8::2", "[2001:db8::1]:25", patience/4); err == nil {
			t.Cleanup(func() { c.Close() })
			rest++
		}
	}
	if four != 4 || rest != 2 {
		t.Errorf("%d and %d connections under one shared cap of 6, want 4 and 2", four, rest)
	}
}

// With filter "all" a stranger's ACK meets silence, and not the kernel's RST.
func TestFilterAll(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	for _, all := range []bool{false, true} {
		e.setPort(t, rule.Port{All: all}, rule.Limits{})
		ack := e.frame(t, "192.0.2.3", 25)
		ack[47] = 0x10
		checksum(ack)
		if got := e.answered(t, 25, ack); got == all {
			t.Errorf("filter all=%v: a stranger's ACK was answered: %v", all, got)
		}
	}
	if err := e.dialError("192.0.2.2", "192.0.2.1:25"); err != nil {
		t.Errorf("the allowed source: %v", err)
	}
}

// answered sends frames from the peer and says whether TCP of the edge's port
// answers them.
func (e *edge) answered(t *testing.T, port uint16, frames ...[]byte) (got bool) {
	t.Helper()
	e.peer.Do(func() error {
		ifc, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		family := binary.BigEndian.Uint16(frames[0][12:])
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(hton(family)))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval((400 * time.Millisecond).Nanoseconds())
		if err := errors.Join(
			unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifc.Index, Protocol: hton(family)}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		); err != nil {
			return err
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index}); err != nil {
				return err
			}
		}
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return nil // nothing came
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			next, tcp := 23, 34
			if family == unix.ETH_P_IPV6 {
				next, tcp = 20, 54
			}
			if ok && ll.Pkttype == unix.PACKET_HOST && n >= tcp+20 && buf[next] == 6 && binary.BigEndian.Uint16(buf[tcp:]) == port {
				got = true
				return nil
			}
		}
	})
	return got
}

func hton(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// frame is a SYN from src to the edge with the right addresses in every header.
func (e *edge) frame(t *testing.T, src string, port uint16) []byte {
	t.Helper()
	frame := loader.SYN(netip.MustParseAddr(src), port)
	e.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			copy(frame, l.Attrs().HardwareAddr)
		}
		return err
	})
	if frame[12] == 0x86 {
		copy(frame[38:54], netip.MustParseAddr("2001:db8::1").AsSlice())
	} else {
		copy(frame[30:34], []byte{192, 0, 2, 1})
	}
	return frame
}
