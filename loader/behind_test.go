package loader_test

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// The ways from the edge to a server that is not a socket of its own.
var ways = map[string]func(t *testing.T, e *edge){"routed": routed, "bridged": bridged}

// newForward is an edge whose server is another host behind it. Silent
// connections are forgotten after idle, 0 = as usual.
func newForward(t *testing.T, way func(*testing.T, *edge), limits rule.Limits, idle time.Duration) *edge {
	t.Helper()
	f, err := loader.Open(loader.Options{PinDir: filepath.Join(lab.BPFFS(t), "synward"), PassageIdle: idle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e := &edge{Host: lab.NewHost(t, "edge"), peer: lab.NewHost(t, "peer"), behind: lab.NewHost(t, "server"), filter: f}
	lab.Connect(e.Host, "eth0", e.peer, "eth0")
	lab.Connect(e.Host, "eth1", e.behind, "eth0")
	e.peer.Address("eth0", "192.0.2.2/24", "192.0.2.3/24")
	e.peer.PassAll("eth0")
	way(t, e)
	e.setPort(t, rule.Port{Forward: true}, limits)
	e.attach(t)
	return e
}

// routed puts the server into a network of its own.
func routed(t *testing.T, e *edge) {
	t.Helper()
	e.Address("eth0", "192.0.2.1/24")
	e.Address("eth1", "198.51.100.1/24")
	e.behind.Address("eth0", "198.51.100.2/24")
	e.server = "198.51.100.2"
	e.Do(func() error { return e.Sysctl("net/ipv4/ip_forward", "1") })
	for _, r := range []struct {
		on       *lab.Host
		dst, via string
	}{{e.peer, "198.51.100.0/24", "192.0.2.1"}, {e.behind, "192.0.2.0/24", "198.51.100.1"}} {
		_, dst, err := net.ParseCIDR(r.dst)
		if err != nil {
			t.Fatal(err)
		}
		r.on.Do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(r.via)}) })
	}
}

// bridged gives the server, as a container has it, an address beside the NIC's.
func bridged(t *testing.T, e *edge) {
	t.Helper()
	e.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "eth1"} {
			port, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(port, bridge); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(bridge)
	})
	e.behind.Address("eth0", "192.0.2.9/24")
	e.server = "192.0.2.9"
}

func (e *edge) attach(t *testing.T) loader.Attachment {
	t.Helper()
	var at loader.Attachment
	e.Do(func() (err error) { at, err = e.filter.Attach("eth0", loader.Native); return err })
	return at
}

// highest watches the server's own socket table until stop is called, which
// returns the most connections that it ever held.
func (e *edge) highest(t *testing.T, src string) (stop func() uint64) {
	t.Helper()
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		var n uint64
		for {
			select {
			case <-done:
				most <- n
				return
			default:
				n = max(n, e.sockets(t, src))
				time.Sleep(5 * time.Millisecond)
			}
		}
	}()
	return func() uint64 { close(done); return <-most }
}

// nextSequence is the number of the next byte that a connection sends.
func nextSequence(c *net.TCPConn) (seq uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	const off = -1 // TCP_REPAIR_OFF_NO_WP: without a window probe
	var inner error
	err = raw.Control(func(fd uintptr) {
		set := func(option, value int) {
			if inner == nil {
				inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
			}
		}
		set(unix.TCP_REPAIR, 1)
		set(unix.TCP_REPAIR_QUEUE, 2) // TCP_SEND_QUEUE
		if inner == nil {
			var v int
			v, inner = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			seq = uint32(v)
		}
		set(unix.TCP_REPAIR, off)
	})
	return seq, errors.Join(err, inner)
}

func (e *edge) hardware(t *testing.T, name string) net.HardwareAddr {
	t.Helper()
	return hardware(t, e.Host, name)
}

func hardware(t *testing.T, h *lab.Host, name string) (mac net.HardwareAddr) {
	t.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// keepBusy writes on connections until stop is called.
func keepBusy(conns []net.Conn) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, c := range conns {
				_, _ = c.Write([]byte("."))
			}
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() { close(done); wg.Wait() }
}
