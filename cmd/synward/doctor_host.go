package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
)

func (p *patient) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/", p.root, name))
	return strings.TrimSpace(string(b)), err
}

// distributions brings the kernel of Debian and Fedora and what descends from
// them, which are new enough and have BTF.
const distributions = "apt install linux-image-" + runtime.GOARCH + " (Ubuntu: linux-image-generic) or dnf install kernel; then reboot"

// minKernel is the oldest Linux that the filter runs on.
var minKernel = [2]int{5, 15}

func examineKernel(_ context.Context, p *patient) []finding {
	out := []finding{p.kernelVersion()}
	if _, err := os.Stat(filepath.Join("/", p.root, "sys/kernel/btf/vmlinux")); err != nil {
		out = append(out, fail("btf", distributions, "no /sys/kernel/btf/vmlinux: the filter cannot be loaded"))
	} else {
		out = append(out, ok("btf", "/sys/kernel/btf/vmlinux"))
	}
	switch v, err := p.read("proc/sys/net/core/bpf_jit_enable"); {
	case err != nil || v == "1": // without the file the JIT is always on
		out = append(out, ok("jit", "on"))
	default:
		out = append(out, warn("jit", "sysctl -w net.core.bpf_jit_enable=1", "net.core.bpf_jit_enable = %s: the filter is interpreted, many times slower", v))
	}
	switch v, err := p.read("proc/sys/net/ipv4/tcp_syncookies"); {
	case err != nil:
		out = append(out, warn("syncookies", "sysctl net.ipv4.tcp_syncookies", "cannot be read: %v", err))
	case v == "0":
		out = append(out, warn("syncookies", "sysctl -w net.ipv4.tcp_syncookies=1", "off: a flood from an allowed address can fill the backlog"))
	default:
		out = append(out, ok("syncookies", "net.ipv4.tcp_syncookies = %s", v))
	}
	// bit 1: for servers (Documentation/networking/ip-sysctl.rst); 1, the default, is for clients
	if v, _ := p.read("proc/sys/net/ipv4/tcp_fastopen"); len(v) == 1 && (v[0]-'0')&2 != 0 {
		out = append(out, warn("fast open", "sysctl -w net.ipv4.tcp_fastopen=1", "on for servers: an MTA that asks for it gets connections that no cap holds back"))
	}
	return append(out, p.mounts()...)
}

func (p *patient) kernelVersion() finding {
	release, err := p.read("proc/sys/kernel/osrelease")
	var major, minor int
	if err == nil {
		_, err = fmt.Sscanf(release, "%d.%d", &major, &minor)
	}
	switch {
	case err != nil:
		return warn("kernel", "uname -r", "its version cannot be read: %v", err)
	case major < minKernel[0] || major == minKernel[0] && minor < minKernel[1]:
		return fail("kernel", distributions, "Linux %s; the filter needs %d.%d", release, minKernel[0], minKernel[1])
	}
	return ok("kernel", "Linux %s", release)
}

// mounts looks for the two filesystems that the filter needs.
func (p *patient) mounts() []finding {
	var out []finding
	var st unix.Statfs_t
	dir := filepath.Dir(p.file.Filter.PinDir)
	switch err := unix.Statfs(dir, &st); {
	case err != nil, uint32(st.Type) != unix.BPF_FS_MAGIC:
		out = append(out, fail("bpffs", "mount -t bpf bpf "+dir, "%s is not on a bpf filesystem: the pins have no place", dir))
	case st.Flags&unix.ST_RDONLY != 0:
		out = append(out, fail("bpffs", "mount -o remount,rw "+dir, "%s is read-only", dir))
	default:
		out = append(out, ok("bpffs", "%s", dir))
	}
	mounts, err := p.read("proc/self/mountinfo")
	if err == nil && strings.Contains(mounts, " - cgroup2 ") {
		return append(out, ok("cgroup2", "mounted"))
	}
	return append(out, warn("cgroup2", "mount -t cgroup2 none /sys/fs/cgroup/unified", "not mounted: the cap on open connections cannot count"))
}

// slowDrivers have no native XDP, by what the kernel's tree says.
var slowDrivers = map[string]bool{"e1000": true, "e1000e": true, "r8169": true, "8139cp": true, "vmxnet": true, "bridge": true, "dummy": true, "ifb": true, "vlan": true}

// nameOne mends what is wrong with [filter] interfaces.
const nameOne = "ip -br link; then name one in [filter] interfaces, and systemctl reload synward"

func examineInterfaces(_ context.Context, p *patient) []finding {
	names, missing, err := p.interfaces()
	var out []finding
	switch {
	case err != nil:
		return []finding{fail("interfaces", nameOne, "%v", err)}
	case slices.Contains(missing, "auto"):
		out = append(out, fail("interfaces", "ip route add default via GATEWAY; or "+nameOne,
			`"auto" finds no default route on this host: the filter waits for one, and protects nothing`))
	case len(names)+len(missing) == 0:
		out = append(out, fail("interfaces", nameOne, "none matches %q now: the filter waits for one, and protects nothing", p.file.Filter.Interfaces))
	}
	all, err := netlink.LinkList()
	if err != nil {
		return []finding{fail("interfaces", "ip -br link", "list the interfaces: %v", err)}
	}
	for _, name := range append(names, slices.DeleteFunc(missing, func(name string) bool { return name == "auto" })...) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			out = append(out, fail(name, nameOne, "this host has no such interface: %v", err))
			continue
		}
		out = append(out, p.examineLink(l)...)
		out = append(out, composed(l, all, names)...)
	}
	return out
}

// interfaces are those that the agent names, or without one those that the
// configuration means; missing as in FilterConfig.Wanted.
func (p *patient) interfaces() (names, missing []string, err error) {
	if p.status == nil {
		return p.file.Filter.Wanted()
	}
	for _, i := range p.status.Filter.Interfaces {
		if i.Name == "auto" {
			missing = append(missing, i.Name)
		} else {
			names = append(names, i.Name)
		}
	}
	return names, missing, nil
}

func (p *patient) examineLink(l netlink.Link) []finding {
	a := l.Attrs()
	name := a.Name
	driver := l.Type()
	if to, err := os.Readlink(filepath.Join("/", p.root, "sys/class/net", name, "device/driver")); err == nil {
		driver = filepath.Base(to)
	}
	queues, _ := filepath.Glob(filepath.Join("/", p.root, "sys/class/net", name, "queues/rx-*"))
	out := []finding{ok(name, "driver %s, %s, MTU %d", driver, plural(len(queues), "receive queue", "receive queues"), a.MTU)}
	if slowDrivers[driver] {
		out = append(out, warn(name, "a card whose driver has native XDP, such as ixgbe, i40e, ice, mlx5, ena, virtio_net", "%s has no native XDP: the filter costs more per packet there", driver))
	}
	if driver == "virtio_net" && len(queues) < 2*runtime.NumCPU() {
		out = append(out, warn(name, "give the NIC more queues in the hypervisor (libvirt: <driver queues='"+strconv.Itoa(2*runtime.NumCPU())+"'/>)",
			"native XDP on virtio-net likes a queue more for every CPU; it has %d for %d", len(queues), runtime.NumCPU()))
	}
	if a.MTU > 3498 && p.multiBufferMissing() {
		out = append(out, warn(name, "ip link set dev "+name+" mtu 3498", "MTU %d: before Linux 5.18 a driver may refuse native XDP above 3,498", a.MTU))
	}
	out = append(out, p.offloads(name)...)
	return append(out, p.examineOwner(a))
}

func (p *patient) multiBufferMissing() bool {
	var major, minor int
	release, _ := p.read("proc/sys/kernel/osrelease")
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major == 5 && minor < 18
}

// examineOwner says who holds the interface's place for XDP.
func (p *patient) examineOwner(a *netlink.LinkAttrs) finding {
	check := a.Name + " xdp"
	if p.status != nil {
		for _, i := range p.status.Filter.Interfaces {
			if i.Name == a.Name && i.Mode == loader.Native {
				return ok(check, "the filter, native")
			} else if i.Name == a.Name && i.Mode == loader.TCX {
				return ok(check, "%s; the filter is behind it, by TCX", holder(a))
			} else if i.Name == a.Name && i.Mode != "" {
				return warn(check, "see the driver above; [filter] attach = \"native\" makes it an error", "the filter, in generic mode: it costs more per packet")
			}
		}
	}
	if a.Xdp == nil || !a.Xdp.Attached {
		return ok(check, "free")
	}
	if _, err := os.Stat(filepath.Join(p.file.Filter.PinDir, "links", strconv.Itoa(a.Index))); err == nil {
		return ok(check, "the filter, left by an earlier agent")
	}
	mend := "ip link set dev " + a.Name + " xdp off, or [filter] attach = \"tcx\" (Linux 6.6)"
	if p.file.Filter.Attach == loader.TCX {
		return ok(check, "%s; the filter's place is behind it, by TCX", holder(a))
	}
	return fail(check, mend, "%s has the place", holder(a))
}

// holder names the program that has an interface's place for XDP.
func holder(a *netlink.LinkAttrs) string {
	if a.Xdp == nil || !a.Xdp.Attached {
		return "free"
	}
	return loader.NameProgram(a.Xdp.ProgId) + " of somebody else"
}
