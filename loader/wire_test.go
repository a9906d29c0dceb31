package loader_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// bulk is sent each way: enough for large segments and for GRO.
const bulk = 2 << 20

func setMTU(h *lab.Host, ifname string, mtu int) {
	h.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
}

// Bulk data goes through the filter whole, both ways, in frames of several buffers
// and in packets that the stack cuts or joins.
func TestBulkArrivesWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  loader.Mode
		mtu   int
		frame int // that the stack meets is at least so long
	}{
		{loader.Native, 1500, 1514}, // the sender cuts for a veth with XDP
		{loader.Native, 9000, 8900}, // several buffers
		{loader.Generic, 1500, 3000},
		{loader.TCX, 1500, 3000},
		{loader.TCX, 9000, 10000},
	} {
		t.Run(fmt.Sprintf("%s-%d", c.mode, c.mtu), func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, rule.Limits{})
			setMTU(e.Host, "eth0", c.mtu)
			setMTU(e.peer, "eth0", c.mtu)
			if !e.attachAs(t, c.mode) {
				return
			}
			longest := e.longest(t)
			for src, to := range map[string]string{"192.0.2.2": "192.0.2.1:25", "2001:db8::2": "[2001:db8::1]:25"} {
				l := e.ListenRaw(to)
				if err := exchange(l, e.peer, src, to); err != nil {
					t.Errorf("%s: %v", to, err)
				}
			}
			if got := int(longest.Load()); got < c.frame {
				t.Errorf("the longest frame that came has %d bytes, want %d or more", got, c.frame)
			}
		})
	}
}

// attachAs puts the filter on eth0 in another mode than it is.
func (e *edge) attachAs(t *testing.T, mode loader.Mode) (there bool) {
	t.Helper()
	if mode == loader.Native {
		return true
	}
	e.Do(func() error { return e.filter.Detach("eth0") })
	if mode == loader.TCX {
		return e.attachTCX(t)
	}
	e.Do(func() error { _, err := e.filter.Attach("eth0", mode); return err })
	return true
}

// longest follows the longest frame that the edge's stack takes in behind XDP.
func (e *edge) longest(t *testing.T) *atomic.Int64 {
	t.Helper()
	var longest atomic.Int64
	done := make(chan struct{})
	e.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(hton(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
		go func() {
			defer unix.Close(fd)
			for {
				select {
				case <-done:
					return
				default:
				}
				n, from, err := unix.Recvfrom(fd, make([]byte, 14), unix.MSG_TRUNC)
				ll, ok := from.(*unix.SockaddrLinklayer)
				if err == nil && ok && ll.Pkttype == unix.PACKET_HOST && ll.Hatype == unix.ARPHRD_ETHER {
					longest.Store(max(longest.Load(), int64(n)))
				}
			}
		}()
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	})
	t.Cleanup(func() { close(done) })
	return &longest
}

// exchange has a client and the server send each other random bytes, and says
// what did not arrive as it was.
func exchange(l net.Listener, from *lab.Host, src, to string) error {
	up, down := make([]byte, bulk), make([]byte, bulk)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(up) // never fails, says its documentation
	_, _ = r.Read(down)
	c, err := from.Dial(src, to, 4*patience)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return err
	}
	defer s.Close()
	results := make(chan error, 4)
	for _, way := range []struct {
		conn       net.Conn
		sent, want []byte
	}{{c, up, down}, {s, down, up}} {
		_ = way.conn.SetDeadline(time.Now().Add(time.Minute))
		go func() { _, err := way.conn.Write(way.sent); results <- err }()
		go func() {
			got := make([]byte, bulk)
			_, err := io.ReadFull(way.conn, got)
			if err == nil && !bytes.Equal(got, way.want) {
				err = errors.New("other bytes arrived than were sent")
			}
			results <- err
		}()
	}
	return errors.Join(<-results, <-results, <-results, <-results)
}

// A router behind which packets must be smaller says so by ICMP, and the filter
// leaves it to the stack: what the server sends arrives.
func TestPathMTUReachesTheStack(t *testing.T) {
	t.Parallel()
	const narrow = 1400
	e := newEdge(t, rule.Limits{})
	far := lab.NewHost(t, "far")
	lab.Connect(e.peer, "eth1", far, "eth0") // the peer routes
	e.peer.Address("eth1", "198.51.100.1/24", "2001:db8:f::1/64")
	far.Address("eth0", "198.51.100.2/24", "2001:db8:f::2/64")
	setMTU(e.peer, "eth1", narrow) // one end only: the far host's segments say nothing of it
	e.peer.Do(func() error {
		return errors.Join(e.peer.Sysctl("net/ipv4/ip_forward", "1"), e.peer.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	})
	route(t, e.Host, "198.51.100.0/24", "192.0.2.2")
	route(t, e.Host, "2001:db8:f::/64", "2001:db8::2")
	route(t, far, "192.0.2.0/24", "198.51.100.1")
	route(t, far, "2001:db8::/64", "2001:db8:f::1")
	e.sync(t, rule.Limits{}, "198.51.100.2/32", "2001:db8:f::2/128")
	for _, to := range []string{"192.0.2.1:25", "[2001:db8::1]:25"} {
		l := e.ListenRaw(to)
		if mtu, err := download(l, far, to); err != nil || mtu != narrow {
			t.Errorf("%s: the server's path has an MTU of %d (%v), want %d", to, mtu, err, narrow)
		}
	}
}

func route(t *testing.T, on *lab.Host, dst, via string) {
	t.Helper()
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		t.Fatal(err)
	}
	on.Do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(via)}) })
}

// download has the server send, and says what MTU its socket knows in the end.
func download(l net.Listener, from *lab.Host, to string) (mtu int, err error) {
	var c net.Conn
	for range 10 { // on a slow machine the router has to find its neighbours first
		if c, err = from.Dial("", to, 4*patience); err == nil {
			break
		}
		time.Sleep(patience / 2)
	}
	if err != nil {
		return 0, err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	const size = 256 << 10
	go func() { _, _ = s.Write(make([]byte, size)) }()
	if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
		return 0, err
	}
	raw, err := s.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	level, option := unix.SOL_IP, unix.IP_MTU
	if netip.MustParseAddrPort(to).Addr().Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU
	}
	var failed error
	err = raw.Control(func(fd uintptr) { mtu, failed = unix.GetsockoptInt(int(fd), level, option) })
	return mtu, errors.Join(err, failed)
}
