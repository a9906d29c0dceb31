// Package lab makes hosts for tests out of network namespaces: real interfaces,
// real packets, real TCP. Everything that it makes carries a name of its own
// and is gone when the test ends. It needs root, and a test without it fails.
package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// T is what the lab needs of a test: testing.TB has it, and so can a program.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// sequence tells the namespaces of one process apart.
type sequence struct{ n atomic.Int32 }

var names sequence

func (s *sequence) next(kind string) string {
	return fmt.Sprintf("sw%s%d-%d", kind, os.Getpid(), s.n.Add(1))
}

// BPFFS mounts a bpf filesystem of the test's own and returns its path.
func BPFFS(t T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a bpf filesystem: %v (the tests need root)", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Host is one network namespace.
type Host struct {
	Name string
	ns   netns.NsHandle
	t    T
}

// NewHost makes a host with a loopback that is up.
func NewHost(t T, kind string) *Host {
	t.Helper()
	h := &Host{Name: names.next(kind), t: t}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatalf("open this namespace: %v", err)
	}
	defer home.Close()
	h.ns, err = netns.NewNamed(h.Name)
	if err != nil {
		t.Fatalf("make namespace %s: %v (the tests need root)", h.Name, err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatalf("return from namespace: %v", err)
	}
	t.Cleanup(func() {
		h.ns.Close()
		_ = netns.DeleteNamed(h.Name)
	})
	h.Do(func() error { return setUp("lo") })
	return h
}

func setUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// Do runs fn in the host's namespace, on a thread of its own; an error fails the test.
func (h *Host) Do(fn func() error) {
	h.t.Helper()
	if err := h.Try(fn); err != nil {
		h.t.Fatalf("on %s: %v", h.Name, err)
	}
}

// Try is Do for what may fail. Sockets that fn makes stay in the namespace,
// also when they are used elsewhere.
func (h *Host) Try(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// Command is a program to be run on the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + h.Name, "--", name}, args...)...)
}

// Connect joins two hosts by a veth pair, whose ends are called a and b.
func Connect(h1 *Host, a string, h2 *Host, b string) {
	h1.t.Helper()
	h1.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a
		if err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: b, PeerNamespace: netlink.NsFd(int(h2.ns)),
		}); err != nil {
			return err
		}
		return setUp(a)
	})
	h2.Do(func() error { return setUp(b) })
}

// Address gives an interface addresses, without duplicate address detection.
func (h *Host) Address(ifname string, prefixes ...string) {
	h.t.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			pfx := netip.MustParsePrefix(p)
			addr := &netlink.Addr{
				IPNet: &net.IPNet{
					IP:   pfx.Addr().AsSlice(),
					Mask: net.CIDRMask(pfx.Bits(), pfx.Addr().BitLen()),
				},
				Flags: unix.IFA_F_NODAD,
			}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("address %s: %w", p, err)
			}
		}
		return nil
	})
}

// Listen serves TCP on the host; every connection is closed after a greeting.
func (h *Host) Listen(addr string) net.Listener {
	h.t.Helper()
	l := h.ListenRaw(addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 here\r\n"))
			c.Close()
		}
	}()
	return l
}

// Echo listens on the host and sends back what comes, on every connection.
func (h *Host) Echo(addr string) {
	h.t.Helper()
	l := h.ListenRaw(addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
}

// Dial connects from the host, from an address of its own where one is named.
func (h *Host) Dial(from, to string, timeout time.Duration) (net.Conn, error) {
	var c net.Conn
	err := h.Try(func() (err error) {
		d := net.Dialer{Timeout: timeout}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		d.SetMultipathTCP(false)
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// ListenRaw listens on the host; what comes is the caller's.
func (h *Host) ListenRaw(addr string) net.Listener {
	h.t.Helper()
	var l net.Listener
	h.Do(func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", addr)
		return err
	})
	h.t.Cleanup(func() { l.Close() })
	return l
}

// Sysctl sets a value; call it on the host, inside Do.
func (h *Host) Sysctl(name, value string) error {
	// /proc/sys/net is that of the thread which opens it
	return os.WriteFile(fmt.Sprintf("/proc/thread-self/root/proc/sys/%s", name), []byte(value), 0)
}

// PassAll puts an XDP program that passes everything on an interface. A veth
// takes frames that its peer sends from XDP only with one.
func (h *Host) PassAll(ifname string) {
	h.t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass_all", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		h.t.Fatalf("load a passing program: %v", err)
	}
	h.t.Cleanup(func() { prog.Close() })
	h.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index})
		if err == nil {
			h.t.Cleanup(func() { x.Close() })
		}
		return err
	})
}

// Give moves an interface to another host, under a name of its own there, and
// sets it up.
func Give(from *Host, name string, to *Host, as string) {
	from.t.Helper()
	from.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(l, as+"-moved"); err != nil {
			return err
		}
		return netlink.LinkSetNsFd(l, int(to.ns))
	})
	to.Do(func() error {
		l, err := netlink.LinkByName(as + "-moved")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(l, as); err != nil {
			return err
		}
		return setUp(as)
	})
}
