package loader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mode is how a filter is attached to an interface.
type Mode string

// The modes. Auto is native, else generic with a warning; TCX is behind XDP, in
// the stack's first hook for programs (Linux 6.6).
const (
	Auto    Mode = "auto"
	Native  Mode = "native"
	Generic Mode = "generic"
	TCX     Mode = "tcx"
)

// The values of IFLA_XDP_ATTACHED, include/uapi/linux/if_link.h.
const (
	xdpAttachedGeneric = 2
)

// Attachment is one interface that the filter is on.
type Attachment struct {
	Interface string `json:"interface"`
	Index     int    `json:"index"`
	Mode      Mode   `json:"mode"`              // Native, Generic or TCX
	Egress    string `json:"egress,omitempty"`  // how what leaves by it is watched: tcx or clsact; none = it is not
	Warning   string `json:"warning,omitempty"` // why it is not what was asked for, in words
}

// Attach puts the filter on an interface; where it is there already it makes
// sure that the current program runs. Idempotent. The error wraps ErrForeign
// where somebody else's program has the place.
func (f *Filter) Attach(name string, mode Mode) (Attachment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.attachIngress(name, mode)
	if err != nil {
		return a, err
	}
	return a, f.keepEgress(&a)
}

func (f *Filter) attachIngress(name string, mode Mode) (Attachment, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return Attachment{}, fmt.Errorf("attach to %s: no such interface: see `ip link` and [filter].interfaces", name)
	}
	if f.succeeds {
		return Attachment{}, fmt.Errorf("attach to %s: %w", name, errNoPolicy)
	}
	if err := f.countHere(); err != nil {
		return Attachment{}, err
	}
	a := Attachment{Interface: name, Index: ifc.Index}
	pin := f.linkPin(ifc.Index)
	kept, had, err := f.keepLink(&a, pin, mode)
	if kept || err != nil {
		return a, err
	}
	err = f.putLink(&a, pin, mode)
	if err == nil || had == "" {
		return a, err
	}
	if back := f.putLink(&a, pin, had); back != nil {
		return a, errors.Join(err, back)
	}
	err = fmt.Errorf("%w; the filter goes on in %s mode", err, had)
	f.refused[a.Index] = refusal{mode, err} // each try takes the filter off for a moment
	return a, err
}

// refusal is a mode that an interface does not take in the place of the one it has.
type refusal struct {
	mode Mode
	err  error
}

// putLink attaches and pins.
func (f *Filter) putLink(a *Attachment, pin string, mode Mode) error {
	l, err := f.attachLink(a, mode)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := replaceLink(l, pin); err != nil {
		return fmt.Errorf("pin the link to %s: %w", a.Interface, err)
	}
	return nil
}

// keepLink goes on with a pinned link, or removes one that is defunct or in
// another mode than is wanted (had: native and generic cannot be there together).
// One that can stay beside what is wanted stays, until that has its place.
func (f *Filter) keepLink(a *Attachment, pin string, want Mode) (kept bool, had Mode, err error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return false, "", nil
	}
	defer l.Close()
	mode, live := linkMode(l, a.Index)
	switch {
	case live && suits(mode, want):
		a.Mode = mode
		if mode == Generic && want == Auto {
			a.Warning = "the driver refused native mode when the filter was attached: it runs in generic mode, which costs more per packet"
		}
		return true, "", f.update(l)
	case live && (mode == TCX) != (want == TCX):
		return false, "", nil
	}
	if r, ok := f.refused[a.Index]; ok && live && r.mode == want {
		a.Mode = mode
		return true, "", errors.Join(r.err, f.update(l))
	}
	if err := os.Remove(pin); err != nil {
		return false, "", fmt.Errorf("detach from %s: %w", a.Interface, err)
	}
	if live {
		had = mode
	}
	return false, had, nil
}

// suits says whether an attachment may stay as it is. Auto takes both of XDP's,
// so that a re-open never takes the filter off an interface.
func suits(have, want Mode) bool { return have == want || want == Auto && have != TCX }

func (f *Filter) attachLink(a *Attachment, mode Mode) (link.Link, error) {
	if mode == TCX {
		return f.attachTCX(a)
	}
	var why error
	if mode != Generic {
		l, err := link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: a.Index, Flags: link.XDPDriverMode})
		if err == nil {
			a.Mode = Native
			return l, nil
		}
		if why = attachError(a, err); mode == Native || errors.Is(why, ErrForeign) {
			return nil, why
		}
		why = err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: a.Index, Flags: link.XDPGenericMode})
	if err != nil {
		return nil, attachError(a, err)
	}
	a.Mode = Generic
	if why != nil {
		a.Warning = fmt.Sprintf("the driver refused native mode (%v): the filter runs in generic mode, which costs more per packet", why)
	}
	return l, nil
}

func attachError(a *Attachment, err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("attach to %s: %w: %s; take it off (`ip link set dev %s xdp off`, or stop what loaded it), or set [filter] attach = \"tcx\" (Linux 6.6)",
			a.Interface, ErrForeign, owner(a.Index), a.Interface)
	}
	return fmt.Errorf("attach to %s: %w", a.Interface, err)
}

// owner names the program that sits on an interface.
func owner(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().Xdp == nil {
		return "unknown"
	}
	return NameProgram(l.Attrs().Xdp.ProgId)
}

// NameProgram names a loaded program by its number and, where the process may
// see it (CAP_SYS_ADMIN), by its name.
func NameProgram(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil { // it takes CAP_SYS_ADMIN, which the agent has not
		return fmt.Sprintf("program %d (bpftool prog show id %d)", id, id)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	return fmt.Sprintf("program %d %q", id, info.Name)
}

// Detach takes the filter off an interface. Where it is not on it, nothing happens.
func (f *Filter) Detach(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	if err := removeLink(f.linkPin(ifc.Index)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach from %s: %w", name, err)
	}
	return f.dropEgress(ifc.Index)
}

// Attachments lists the interfaces with a live link of ours, and forgets the
// links of interfaces that are gone.
func (f *Filter) Attachments() ([]Attachment, error) {
	names, err := f.dir.links()
	if err != nil {
		return nil, err
	}
	var out []Attachment
	for _, name := range names {
		index, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		l, err := link.LoadPinnedLink(f.linkPin(index), nil)
		if err != nil {
			continue
		}
		if holds(l) == 0 {
			_ = os.Remove(f.linkPin(index))
			_ = os.Remove(f.egressPin(index))
		} else if mode, live := linkMode(l, index); live {
			if ifc, err := net.InterfaceByIndex(index); err == nil {
				at := Attachment{Interface: ifc.Name, Index: index, Mode: mode}
				f.inspectEgress(&at)
				out = append(out, at)
			}
		}
		l.Close()
	}
	return out, nil
}

func (f *Filter) linkPin(index int) string {
	return filepath.Join(f.dir.linkDir(), strconv.Itoa(index))
}

// updateLinks makes every pinned link run f.prog.
func (f *Filter) updateLinks() error {
	names, err := f.dir.links()
	if err != nil {
		return err
	}
	for _, name := range names {
		l, err := link.LoadPinnedLink(filepath.Join(f.dir.linkDir(), name), nil)
		if err != nil {
			return fmt.Errorf("open link %s: %w", name, err)
		}
		err = f.update(l)
		l.Close()
		if err != nil && !errors.Is(err, unix.ENOLINK) { // ENOLINK: its interface is gone
			return fmt.Errorf("update link %s: %w", name, err)
		}
	}
	return nil
}

// holds is the index of a link's interface; 0 = that was deleted, -1 = not known.
func holds(l link.Link) int {
	info, err := l.Info()
	if err != nil {
		return -1
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex)
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex)
	}
	return -1
}

// linkMode is how a link holds its interface. live says whether it does.
func linkMode(l link.Link, index int) (mode Mode, live bool) {
	if holds(l) != index {
		return "", false
	}
	if info, err := l.Info(); err == nil && info.Type == link.TCXType {
		return TCX, true
	}
	mode, err := attachedMode(index)
	return mode, err == nil
}

func attachedMode(index int) (Mode, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", fmt.Errorf("inspect interface %d: %w", index, err)
	}
	x := l.Attrs().Xdp
	switch {
	case x == nil || !x.Attached:
		return "", fmt.Errorf("interface %d has no XDP program", index)
	case x.AttachMode == xdpAttachedGeneric:
		return Generic, nil
	}
	return Native, nil
}
