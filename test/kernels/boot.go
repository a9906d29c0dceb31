package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// machine is one boot: a kernel, what it runs, and where its words go.
type machine struct {
	kernel  *kernel
	init    string   // the program of guest/
	tests   []string // static test binaries; they land in the guest's root folder
	plan    []string // commands, one a line
	dir     string   // for the initramfs and the logs
	timeout time.Duration
}

func (m *machine) path(kind string) string {
	return filepath.Join(m.dir, m.kernel.series+"."+kind)
}

// pack writes the initramfs.
func (m *machine) pack() error {
	var buf bytes.Buffer
	c := newCPIO(&buf)
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run"} {
		c.dir(dir)
	}
	add := func(name, file string) error {
		data, err := os.ReadFile(file)
		c.file(name, data)
		return err
	}
	if err := add("init", m.init); err != nil {
		return fmt.Errorf("pack %s: %w", m.kernel.series, err)
	}
	for _, t := range m.tests {
		if err := add(filepath.Base(t), t); err != nil {
			return fmt.Errorf("pack %s: %w", m.kernel.series, err)
		}
	}
	modules, err := m.kernel.load(wanted)
	if err != nil {
		return err
	}
	for i, mod := range modules {
		c.file(fmt.Sprintf("modules/%02d-%s.ko", i, mod.name), mod.data)
	}
	c.file("plan", []byte(strings.Join(m.plan, "\n")+"\n"))
	if err := c.close(); err != nil {
		return err
	}
	return os.WriteFile(m.path("cpio"), buf.Bytes(), 0o644)
}

// boot runs the machine to its end and returns what it said on the second
// serial port; the kernel's own words stay in the log beside it.
func (m *machine) boot(ctx context.Context) (string, error) {
	if err := m.pack(); err != nil {
		return "", err
	}
	defer os.Remove(m.path("cpio"))
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	args := []string{
		"-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35", "-smp", "2", "-m", "1024",
		"-kernel", m.kernel.image, "-initrd", m.path("cpio"),
		"-append", "console=ttyS0 loglevel=5 panic=-1 mitigations=off net.ifnames=0",
		"-serial", "file:" + m.path("console"), "-serial", "file:" + m.path("out"),
	}
	if haveKVM() {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		// without five-level paging, at whose set-up QEMU 7.2 crashes under Linux 7.3
		args = append(args, "-accel", "tcg", "-cpu", "max,la57=off")
	}
	for _, n := range cards {
		args = append(args, n.args()...)
	}
	said, err := inSwitchRoom(func() ([]byte, error) {
		return exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
	})
	if ctx.Err() != nil {
		err = fmt.Errorf("no end after %s", m.timeout)
	} else if err != nil {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(said))
	}
	out, readErr := os.ReadFile(m.path("out"))
	return strings.ReplaceAll(string(out), "\r", ""), errors.Join(err, readErr)
}

// haveKVM looks for the modules and not for /dev/kvm: there are paravirtual
// ones that Debian's kernels do not boot under.
func haveKVM() bool {
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			return true
		}
	}
	return false
}

// card is one of the guest's virtio NICs, behind a tap. Two of them are one
// wire, which ends in a bridge: the guest is both hosts.
type card struct {
	tap, bridge string
	options     string
}

// cards become eth0, eth1, … of the guest. The second pair lacks what a driver
// needs to turn guest offloads off, as with VirtualBox and some clouds; with
// offloads that a tap gives, virtio-net then refuses native XDP.
var cards = []card{
	{"tap0", "wire0", ""}, {"tap1", "wire0", ""},
	{"tap2", "wire1", ",ctrl_guest_offloads=off"}, {"tap3", "wire1", ",ctrl_guest_offloads=off"},
}

func (c card) args() []string {
	mac := "52:54:00:00:00:0" + c.tap[len(c.tap)-1:]
	return []string{
		"-netdev", fmt.Sprintf("tap,id=%s,ifname=%s,script=no,downscript=no,vhost=off", c.tap, c.tap),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s%s,romfile=", c.tap, mac, c.options),
	}
}

// inSwitchRoom runs fn on a thread in a network namespace of its own that holds
// the taps; it is gone with the last process in it.
func inSwitchRoom(fn func() ([]byte, error)) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, nsErr := netns.New()
		if nsErr != nil {
			err = fmt.Errorf("make a network namespace: %w (root is needed)", nsErr)
			return
		}
		defer ns.Close()
		if err = wireUp(); err == nil {
			out, err = fn()
		}
	}()
	<-done
	return out, err
}

func wireUp() error {
	for _, c := range cards {
		bridge, err := netlink.LinkByName(c.bridge)
		if err != nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = c.bridge
			bridge = &netlink.Bridge{LinkAttrs: attrs}
			if err := netlink.LinkAdd(bridge); err != nil {
				return fmt.Errorf("make bridge %s: %w", c.bridge, err)
			}
			if err := netlink.LinkSetUp(bridge); err != nil {
				return err
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = c.tap
		tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("make %s: %w", c.tap, err)
		}
		if err := netlink.LinkSetMaster(tap, bridge); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(tap); err != nil {
			return err
		}
	}
	return nil
}
