package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The ways to watch what leaves by an interface.
const (
	egressTCX    = "tcx"    // Linux 6.6
	egressClsact = "clsact" // before
)

// The place of our filter under clsact: before all others, and under a handle
// that nobody else is likely to use ("SY").
const (
	clsactPriority = 1
	clsactHandle   = 0x5359
	clsactName     = "synward"
)

// keepEgress sees that what leaves by an interface is watched where a port's
// server is not a socket of this host, and is not where none is. That it cannot
// be is no error: such ports are then counted by their SYNs, and a warning says so.
func (f *Filter) keepEgress(a *Attachment) error {
	_, cfg, err := f.inForce()
	if err != nil {
		return err
	}
	if !forwards(cfg) {
		return f.dropEgress(a.Index)
	}
	if a.Egress, err = f.watchEgress(a.Index); err != nil {
		warnUnseen(a, cfg, err)
	}
	return f.syncWatches()
}

func forwards(cfg filterConfig) bool { return forwardedPort(cfg) != 0 }

// forwardedPort is a port whose server is elsewhere, or 0.
func forwardedPort(cfg filterConfig) uint16 {
	for _, p := range cfg.Ports {
		if p.Number != 0 && p.Forward != 0 {
			return hostToNet(p.Number)
		}
	}
	return 0
}

func warnUnseen(a *Attachment, cfg filterConfig, why error) {
	text := fmt.Sprintf("the server of port %d is elsewhere, and its answers by %s are not seen: connections are not counted, and SYNs use up the rate", forwardedPort(cfg), a.Interface)
	if why != nil {
		text += fmt.Sprintf(" (%v)", why)
	}
	if a.Warning != "" {
		text = a.Warning + "; " + text
	}
	a.Warning = text
}

// watchEgress attaches this build's program: to TCX, else to clsact. What is
// pinned is the link, or the program that clsact runs.
func (f *Filter) watchEgress(index int) (how string, err error) {
	pin := f.egressPin(index)
	if l, err := link.LoadPinnedLink(pin, nil); err == nil {
		defer l.Close()
		if watches(l, index) {
			return egressTCX, l.Update(f.ledger.Egress)
		}
		if err := os.Remove(pin); err != nil {
			return "", fmt.Errorf("forget a link: %w", err)
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: index, Program: f.ledger.Egress, Attach: ebpf.AttachTCXEgress, Anchor: link.Head(),
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return f.watchClsact(index, pin)
	}
	if err != nil {
		return "", fmt.Errorf("attach to TCX: %w", err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return "", fmt.Errorf("pin the link: %w", err)
	}
	return egressTCX, nil
}

// watches says whether a link still holds its interface's egress.
func watches(l link.Link, index int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	x := info.TCX()
	return x != nil && int(x.Ifindex) == index
}

func (f *Filter) watchClsact(index int, pin string) (how string, err error) {
	err = netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("add the clsact qdisc: %w", err)
	}
	rule := clsactFilter(index)
	rule.Fd = f.ledger.Egress.FD()
	if err := netlink.FilterReplace(rule); err != nil {
		return "", fmt.Errorf("attach to clsact: %w", err)
	}
	if err := f.pinEgress(pin); err != nil {
		return "", fmt.Errorf("pin the egress program: %w", err)
	}
	return egressClsact, nil
}

// pinEgress marks an interface as ours by a pin of the program that it runs.
func (f *Filter) pinEgress(pin string) error {
	prog, err := f.ledger.Egress.Clone() // a pin of its own for each interface
	if err != nil {
		return err
	}
	defer prog.Close()
	return pinOver(prog, pin)
}

func clsactFilter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS,
			Handle: clsactHandle, Priority: clsactPriority, Protocol: unix.ETH_P_ALL,
		},
		Name: clsactName, DirectAction: true,
	}
}

// hasClsact says whether our filter is under an interface's clsact.
func hasClsact(index int) bool {
	dev := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	rules, err := netlink.FilterList(dev, netlink.HANDLE_MIN_EGRESS)
	if err != nil {
		return false
	}
	for _, r := range rules {
		if b, ok := r.(*netlink.BpfFilter); ok && b.Handle == clsactHandle && b.Priority == clsactPriority {
			return true
		}
	}
	return false
}

// inspectEgress says how an interface's egress is watched now, and warns where
// it should be and is not.
func (f *Filter) inspectEgress(a *Attachment) {
	a.Egress = egressOf(f.egressPin(a.Index), a.Index)
	if _, cfg, err := f.inForce(); err == nil && forwards(cfg) && a.Egress == "" {
		warnUnseen(a, cfg, nil)
	}
}

func egressOf(pin string, index int) string {
	if l, err := link.LoadPinnedLink(pin, nil); err == nil {
		defer l.Close()
		if watches(l, index) {
			return egressTCX
		}
		return ""
	}
	if _, err := os.Stat(pin); err == nil && hasClsact(index) {
		return egressClsact
	}
	return ""
}

func (f *Filter) egressPin(index int) string {
	return filepath.Join(f.dir.egressDir(), strconv.Itoa(index))
}

func (f *Filter) dropEgress(index int) error {
	if err := f.dir.dropEgress(strconv.Itoa(index)); err != nil {
		return err
	}
	return f.syncWatches()
}

func (d pinDir) dropEgresses() error {
	names, err := d.egresses()
	for _, name := range names {
		if err == nil {
			err = d.dropEgress(name)
		}
	}
	return err
}

// dropEgress ends the watch by what is pinned of it. The clsact qdisc stays, it
// may be somebody else's too.
func (d pinDir) dropEgress(name string) error {
	pin := filepath.Join(d.egressDir(), name)
	if index, err := strconv.Atoi(name); err == nil && egressOf(pin, index) == egressClsact {
		if err := netlink.FilterDel(clsactFilter(index)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach from clsact: %w", err)
		}
	}
	if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach from egress: %w", err)
	}
	return nil
}

// updateEgresses makes every pinned TCX link run this build's program. Those
// under clsact follow when their interface is attached next.
func (f *Filter) updateEgresses() error {
	names, err := f.dir.egresses()
	if err != nil {
		return err
	}
	for _, name := range names {
		l, err := link.LoadPinnedLink(filepath.Join(f.dir.egressDir(), name), nil)
		if err != nil {
			continue
		}
		err = l.Update(f.ledger.Egress)
		l.Close()
		if err != nil && !errors.Is(err, unix.ENOLINK) { // ENOLINK: its interface is gone
			return fmt.Errorf("update egress %s: %w", name, err)
		}
	}
	return nil
}

// syncWatches tells the filter of which interfaces the egress is watched. What
// comes in by a bond is seen on its members, under their indexes.
func (f *Filter) syncWatches() error {
	names, err := f.dir.egresses()
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	want := map[uint32]bool{}
	for _, name := range names {
		index, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		for _, i := range append(members(index), index) {
			want[uint32(i)] = true
			err := f.maps.Egresses.Update(uint32(i), uint64(now.Nano()), ebpf.UpdateNoExist)
			if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
				return fmt.Errorf("tell the filter of its egress: %w", err)
			}
		}
	}
	return f.forgetWatches(want)
}

func (f *Filter) forgetWatches(want map[uint32]bool) error {
	var gone []uint32
	var index uint32
	var since uint64
	it := f.maps.Egresses.Iterate()
	for it.Next(&index, &since) {
		if !want[index] {
			gone = append(gone, index)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the watched interfaces: %w", err)
	}
	for _, i := range gone {
		if err := f.maps.Egresses.Delete(i); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget interface %d: %w", i, err)
		}
	}
	return nil
}

// members are the interfaces of a bond; none where it is not one.
func members(index int) (out []int) {
	master, err := netlink.LinkByIndex(index)
	if err != nil || master.Type() != "bond" {
		return nil
	}
	all, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range all {
		if l.Attrs().MasterIndex == index {
			out = append(out, l.Attrs().Index)
		}
	}
	return out
}
