package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/test/lab"
)

// stage is what the lab wants of a test, for a program: everything made on it
// is taken down by Strike.
type stage struct {
	lab.Scene
	ctx context.Context
}

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "synward-bench")
	if err != nil {
		s.Fatalf("make a directory: %v", err)
	}
	s.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// check makes an error the stage's end.
func (s *stage) check(what string, err error) {
	if err != nil {
		s.Fatalf("%s: %w", what, err)
	}
	if s.ctx.Err() != nil {
		s.Fatalf("%s: %w", what, s.ctx.Err())
	}
}

// pair is a protected host and a wire to it.
type pair struct {
	s      *stage
	far    *lab.Host // where the generator and the client are
	host   *lab.Host
	device string // the host's interface
	outIdx int    // of far's
	devIdx int    // of the host's
}

// newPair joins a fresh protected host to far by a wire; no two pairs have the
// same number. Answers to strangers leave by a gateway whose hardware address
// is nobody's, so that far's stack drops them at once.
func newPair(s *stage, far *lab.Host, number int) *pair {
	wire := fmt.Sprintf("wire%d", number)
	p := &pair{s: s, far: far, host: lab.NewHost(s, "bench"), device: fmt.Sprintf("swb%d", number)}
	lab.Connect(far, wire, p.host, p.device)
	p.host.Address(p.device, server.String()+"/15")
	far.Do(func() (err error) {
		if p.outIdx, err = setUpEnd(wire, clientMAC); err != nil {
			return err
		}
		// Else what the client sends would pass by the queue that the flood is in.
		return setOffload(wire, unix.ETHTOOL_STSO, 0)
	})
	p.host.Do(func() (err error) {
		if p.devIdx, err = setUpEnd(p.device, serverMAC); err != nil {
			return err
		}
		// A veth takes redirected frames only with GRO, or with an XDP program; a NIC
		// has it on as well.
		if err := setOffload(p.device, unix.ETHTOOL_SGRO, 1); err != nil {
			return fmt.Errorf("turn GRO on: %w", err)
		}
		if err := neighbour(p.devIdx, client, clientMAC); err != nil {
			return err
		}
		if err := neighbour(p.devIdx, gateway, nobodyMAC); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: p.devIdx, Gw: gateway.AsSlice()})
	})
	return p
}

func setUpEnd(name string, mac net.HardwareAddr) (index int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, netlink.LinkSetHardwareAddr(l, mac)
}

func neighbour(index int, ip netip.Addr, mac net.HardwareAddr) error {
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac})
}

// setOffload turns an offload on or off, as ethtool does.
func setOffload(name string, command, on uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{command, on}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&value)
	req := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}

// attach puts an XDP program on the host's device.
func (p *pair) attach(prog *ebpf.Program) {
	p.host.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: p.devIdx, Flags: link.XDPDriverMode})
		if err == nil {
			p.s.Cleanup(func() { l.Close() })
		}
		return err
	})
}

// pipe runs a command on the host with this as its input.
func (p *pair) pipe(input string, name string, args ...string) {
	cmd := p.host.Command(p.s.ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.s.Fatalf("%s: %w: %.300s", name, err, out)
	}
}

// threadsNamed are the processes whose name begins so.
func threadsNamed(prefix string) (pids []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err == nil && strings.HasPrefix(string(comm), prefix) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// pinTo lets a thread run on one CPU only; 0 is the calling one.
func pinTo(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(pid, &set)
}
