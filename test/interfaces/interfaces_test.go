package interfaces

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/test/lab"
)

const (
	net1 = "192.0.2"
	net2 = "198.51.100"
	net3 = "203.0.113"
)

func onLink(h *lab.Host, name string, fn func(netlink.Link) error) {
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return fn(l)
	})
}

// rename gives an interface another name; it is down for a moment, as older
// kernels want.
func rename(h *lab.Host, from, to string) {
	onLink(h, from, func(l netlink.Link) error {
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		if err := netlink.LinkSetName(l, to); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// squat puts a program of somebody else's on an interface, as `ip link` does.
func squat(t *testing.T, h *lab.Host, name string) (leave func()) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "squatter", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	onLink(h, name, func(l netlink.Link) error { return netlink.LinkSetXdpFd(l, prog.FD()) })
	return func() { onLink(h, name, func(l netlink.Link) error { return netlink.LinkSetXdpFd(l, -1) }) }
}

// Several interfaces by a glob, and one that comes while the agent runs.
func TestGlobAndNewcomers(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p1, p2 := e.connect("eth0", net1), e.connect("eth1", net2)
	lan := e.connect("lan0", net3)
	e.Listen(":25")
	e.start(loader.Auto, "eth*")
	e.attached("eth0", loader.Native)
	e.attached("eth1", loader.Native)
	e.guarded(p1, net1)
	e.guarded(p2, net2)
	if !e.reached(lan, net3) || e.shown("lan0").Name != "" {
		t.Error("the filter is on an interface that no name and no glob means")
	}
	onLink(e.Host, "lan0", netlink.LinkDel)
	late := e.connect("eth2", net3)
	e.attached("eth2", loader.Native)
	e.guarded(late, net3)
}

// A rename opens no door, whatever the new name: the filter stays on until the
// configuration is read anew.
func TestRename(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p1, p2 := e.connect("eth0", net1), e.connect("eth1", net2)
	e.Listen(":25")
	e.start(loader.Auto, "eth*")
	rename(e.Host, "eth0", "eth7")
	rename(e.Host, "eth1", "wan0")
	e.Address("eth7", net1+".9/24") // an address or a route is not lost by it, but down and up is a chance
	e.eventually("status shows the new names", func() bool {
		return e.shown("eth7").Mode == loader.Native && e.shown("wan0").Mode == loader.Native && e.shown("eth0").Name == "" && e.shown("eth1").Name == ""
	})
	e.eventually("status says of wan0 that nothing means it", func() bool {
		return strings.Contains(e.shown("wan0").Warning, "filter.interfaces")
	})
	e.eventually("status has nothing against eth7", func() bool { return e.shown("eth7").Warning == "" })
	e.guarded(p1, net1)
	e.guarded(p2, net2)
	e.configure(loader.Auto, "eth*")
	_ = e.cmd.Process.Signal(syscall.SIGHUP)
	e.eventually("a reload takes wan0 at its word", func() bool { return e.shown("wan0").Name == "" })
	if !e.reached(p2, net2) {
		t.Error("wan0 is filtered after the reload")
	}
	e.guarded(p1, net1)

	e.configure(loader.Auto, "eth7", "wan0")
	_ = e.cmd.Process.Signal(syscall.SIGHUP)
	e.attached("wan0", loader.Native)
	rename(e.Host, "wan0", "wan1")
	e.eventually("status says that wan0 is gone", func() bool { return len(e.problems("no interface wan0")) == 1 })
	e.guarded(p2, net2)
}

// What is deleted and made again is attached again, also where the kernel gives
// it the same index.
func TestDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.connect("eth0", net1)
	keep := e.connect("eth1", net2)
	e.Listen(":25")
	e.start(loader.Auto, "eth0", "eth1")
	var index int
	onLink(e.Host, "eth0", func(l netlink.Link) error { index = l.Attrs().Index; return netlink.LinkDel(l) })
	e.eventually("status says that eth0 is gone", func() bool {
		i := e.shown("eth0")
		return i.Mode == "" && i.Warning == "not attached" && len(e.problems("no interface eth0")) == 1
	})
	e.guarded(keep, net2)
	again := e.connect("eth0", net1)
	e.attached("eth0", loader.Native)
	e.guarded(again, net1)
	e.eventually("no problem is left", func() bool { return len(e.problems()) == 0 })

	onLink(e.Host, "eth0", netlink.LinkDel)
	peer := lab.NewHost(t, "peer")
	e.Do(func() error { // the index of the first one, whose pin may be there still
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = "eth0", index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "sw-tmp"}); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err == nil && l.Attrs().Index != index {
			err = fmt.Errorf("index %d, asked for %d", l.Attrs().Index, index)
		}
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	lab.Give(e.Host, "sw-tmp", peer, "eth0")
	e.Address("eth0", net1+".1/24")
	peer.Address("eth0", net1+".2/24", net1+".3/24")
	e.attached("eth0", loader.Native)
	e.guarded(peer, net1)
}

// Somebody else's program keeps its place and is named; the other interfaces go
// on, and when it goes the filter comes.
func TestForeignProgram(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p1, p2 := e.connect("eth0", net1), e.connect("eth1", net2)
	e.Listen(":25")
	leave := squat(t, e.Host, "eth0")
	e.start(loader.Auto, "eth0", "eth1")
	e.guarded(p2, net2)
	named := regexp.MustCompile(`^interface eth0: attach to eth0: another XDP program is attached: program \d+ "squatter"; `)
	st, _ := e.ask()
	if len(st.Problems) != 1 || !named.MatchString(st.Problems[0]) || !strings.Contains(st.Problems[0], `"tcx"`) {
		t.Errorf("problems %q", st.Problems)
	}
	if i := e.shown("eth0"); i.Mode != "" || i.Warning != "not attached" {
		t.Errorf("status of eth0: %+v", i)
	}
	leave()
	e.attached("eth0", loader.Native)
	e.guarded(p1, net1)
	e.eventually("the problem is gone", func() bool { return len(e.problems()) == 0 })
	if n := strings.Count(e.log.String(), "squatter"); n < 1 || n > 3 {
		t.Errorf("the log speaks of it %d times", n)
	}
}

// Where no interface takes the filter, the agent says why and does not start.
func TestForeignProgramsEverywhere(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.connect("eth0", net1)
	squat(t, e.Host, "eth0")
	e.configure(loader.Auto, "eth0")
	e.launch()
	select {
	case err := <-e.ended:
		e.ended <- err
		if err == nil || !strings.Contains(e.log.String(), `refused: attach to eth0: another XDP program is attached`) {
			t.Errorf("%v\n%s", err, e.log)
		}
	case <-time.After(patience):
		t.Error("it runs")
	}
	if _, err := os.Stat(e.config.Filter.PinDir + "/filter"); err == nil {
		t.Error("pins are left")
	}
}

// A driver without native XDP gets the filter in generic mode, with a warning
// in the log and in status, which the next agent gives too.
func TestNativeRefused(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	peer := e.connect("eth0", net1)
	e.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "wan0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		br, err := netlink.LinkByName("wan0")
		if err != nil {
			return err
		}
		port, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, br); err != nil {
			return err
		}
		ipnet := &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}
		if err := netlink.AddrDel(port, &netlink.Addr{IPNet: ipnet}); err != nil {
			return err
		}
		if err := netlink.AddrAdd(br, &netlink.Addr{IPNet: ipnet}); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
	e.Listen(":25")
	e.start(loader.Auto, "wan0")
	for range 2 {
		e.attached("wan0", loader.Generic)
		if w := e.shown("wan0").Warning; !strings.Contains(w, "refused native") || !strings.Contains(w, "costs more") {
			t.Errorf("status warns: %q", w)
		}
		e.guarded(peer, net1)
		e.stop()
		e.start(loader.Auto, "wan0")
	}
	if log := e.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "refused native mode") {
		t.Error("the log does not warn")
	}
	e.stop()
	if _, err := loader.Unload(e.config.Filter.PinDir); err != nil {
		t.Fatal(err)
	}
	e.configure(loader.Native, "wan0")
	e.launch()
	if err := <-e.ended; err == nil || !strings.Contains(e.log.String(), "refused: attach to wan0") {
		t.Errorf("native where the driver refuses it: %v", err)
	}
	e.cmd = nil
}

// With attach = "tcx" the agent shares an interface with somebody else's XDP
// program; a change of the configuration moves the filter, and lets nobody in.
func TestTCX(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p1, p2 := e.connect("eth0", net1), e.connect("eth1", net2)
	e.Listen(":25")
	leave := squat(t, e.Host, "eth0")
	if older(t) {
		e.configure(loader.TCX, "eth*")
		e.launch()
		if err := <-e.ended; err == nil || !strings.Contains(e.log.String(), `attach = "tcx" needs Linux 6.6`) {
			t.Errorf("on a kernel without TCX: %v", err)
		}
		e.cmd = nil
		return
	}
	e.start(loader.TCX, "eth*")
	e.attached("eth0", loader.TCX)
	e.attached("eth1", loader.TCX)
	e.guarded(p1, net1)
	e.guarded(p2, net2)
	if found := e.problems(); len(found) != 0 {
		t.Errorf("problems %q", found)
	}
	reload := func(attach loader.Mode) {
		e.configure(attach, "eth*")
		_ = e.cmd.Process.Signal(syscall.SIGHUP)
	}
	reload(loader.Auto)
	e.attached("eth1", loader.Native)
	e.eventually("eth0 is somebody else's", func() bool { return len(e.problems("interface eth0", "squatter")) == 1 })
	e.attached("eth0", loader.TCX) // where it was: better than nowhere
	e.guarded(p1, net1)
	leave()
	e.attached("eth0", loader.Native)
	reload(loader.TCX)
	e.attached("eth0", loader.TCX)
	e.guarded(p1, net1)
	e.guarded(p2, net2)
}

// older says whether this kernel is older than TCX, by its own word.
func older(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(text), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major < 6 || major == 6 && minor < 6
}
