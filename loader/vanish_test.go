package loader_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// option is one that decides when TCP gives a silent peer up.
type option struct {
	name         string
	level, which int
	want, short  int // what the ledger sets; what a test has time for
}

func giveUp() []option {
	return []option{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 120, 1},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 30, 1},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4, 4},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 240_000, 2_000},
	}
}

// listenPlain listens without Go's own keep-alive.
func listenPlain(h *lab.Host, t *testing.T, addr string) (l net.Listener) {
	t.Helper()
	h.Do(func() (err error) {
		lc := net.ListenConfig{KeepAlive: -1}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", addr)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// accepted waits until the server has n connections, and returns them in the
// order in which they came.
func (s *server) accepted(t *testing.T, n int) []net.Conn {
	t.Helper()
	for range 100 {
		s.mu.Lock()
		conns := s.conns
		s.mu.Unlock()
		if len(conns) >= n {
			return conns
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the server has not accepted %d connections", n)
	return nil
}

// dial makes connections one by one, which stay until the test ends.
func (e *edge) dial(t *testing.T, src string, n int) {
	t.Helper()
	for range n {
		c, err := e.peer.Dial(src, e.to()+":25", 4*patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

// onSocket runs fn with a connection's descriptor.
func onSocket(t *testing.T, c net.Conn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}

// A client that vanishes without a word gives its slot back by the times that the
// ledger sets on the server's sockets: those that it saw open and those that were
// there before.
func TestVanishedClientsGiveTheirSlotsBack(t *testing.T) {
	t.Parallel()
	e := bareEdge(t)
	e.peer.PassAll("eth0")
	s := keep(t, listenPlain(e.Host, t, "192.0.2.1:25"))
	e.dial(t, "192.0.2.2", 2)
	s.accepted(t, 2)
	e.sync(t, rule.Limits{Conns: 4}, "192.0.2.2/32")
	e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
	e.dial(t, "192.0.2.2", 2)
	conns := s.accepted(t, 4)
	for i, c := range conns {
		onSocket(t, c, func(fd int) error {
			for _, o := range giveUp() {
				got, err := unix.GetsockoptInt(fd, o.level, o.which)
				if err != nil || got != o.want {
					t.Errorf("connection %d: %s is %d, %v; want %d", i, o.name, got, err, o.want)
				}
				if err := unix.SetsockoptInt(fd, o.level, o.which, o.short); err != nil {
					return err
				}
			}
			return nil
		})
	}
	e.eventually(t, "192.0.2.2", 4)
	e.peer.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	for _, c := range []net.Conn{conns[0], conns[2]} { // what is sent is never acknowledged
		_, _ = c.Write([]byte("421 is anybody there?\r\n"))
	}
	e.eventually(t, "192.0.2.2", 0)
}

// Times that a server has chosen itself stay as they are when its connection
// comes to be counted.
func TestServersOwnKeepAliveStays(t *testing.T) {
	t.Parallel()
	const own = 33
	e := bareEdge(t)
	e.peer.PassAll("eth0")
	s := keep(t, listenPlain(e.Host, t, "192.0.2.1:25"))
	e.dial(t, "192.0.2.2", 1)
	c := s.accepted(t, 1)[0].(*net.TCPConn)
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: own * time.Second}); err != nil {
		t.Fatal(err)
	}
	e.sync(t, rule.Limits{Conns: 4}, "192.0.2.2/32")
	e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
	e.eventually(t, "192.0.2.2", 1)
	onSocket(t, c, func(fd int) error {
		got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		if got != own {
			t.Errorf("TCP_KEEPIDLE is %d, the server has set %d", got, own)
		}
		return err
	})
}
