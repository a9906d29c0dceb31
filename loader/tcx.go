package loader

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcxPin is the TCX program's name beside the XDP program's. It is pinned for
// the way back from an upgrade that fails.
const tcxPin = "tcx"

// tcxProgram is this build's program for TCX ingress, on the filter's maps. It is
// loaded when an interface first wants it.
func (f *Filter) tcxProgram() (*ebpf.Program, error) {
	if f.tcx != nil {
		return f.tcx, nil
	}
	if !haveTCX() {
		return nil, fmt.Errorf(`%w: attach = "tcx" needs Linux 6.6, this is %s; set [filter] attach to "auto"`, ErrUnsupported, release())
	}
	spec, err := loadTcx()
	if err != nil {
		return nil, err
	}
	maps := f.byName()
	for name := range maps {
		if spec.Maps[name] == nil {
			delete(maps, name)
		} else {
			spec.Maps[name] = f.spec.Maps[name]
		}
	}
	var idle uint64
	if err := f.spec.Variables[filterVarPassageIdleNs].Get(&idle); err != nil {
		return nil, fmt.Errorf("read how long a passage may be silent: %w", err)
	}
	if err := spec.Variables[filterVarPassageIdleNs].Set(idle); err != nil {
		return nil, fmt.Errorf("set how long a passage may be silent: %w", err)
	}
	var progs tcxPrograms
	if err := spec.LoadAndAssign(&progs, &ebpf.CollectionOptions{MapReplacements: maps}); err != nil {
		return nil, fmt.Errorf("load the filter for TCX: %w", explainLoad(err))
	}
	f.closers = append(f.closers, progs.Close)
	f.tcx = progs.SynwardTcx
	return f.tcx, nil
}

// pinTCX pins this build's program where it is loaded.
func (f *Filter) pinTCX() error {
	if f.tcx == nil || f.tcx.IsPinned() {
		return nil
	}
	return f.dir.replaceProgram(f.tcx, tcxPin)
}

// pinnedTCX is the TCX program that ran before, nil where none did.
func (f *Filter) pinnedTCX() *ebpf.Program {
	prog, err := ebpf.LoadPinnedProgram(f.dir.object(tcxPin), nil)
	if err != nil {
		return nil
	}
	f.closers = append(f.closers, prog.Close)
	return prog
}

// attachTCX takes the first place of TCX ingress: the filter decides before
// anybody else there does, and after every XDP program.
func (f *Filter) attachTCX(a *Attachment) (link.Link, error) {
	prog, err := f.tcxProgram()
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", a.Interface, err)
	}
	if err := f.pinTCX(); err != nil {
		return nil, err
	}
	l, err := link.AttachTCX(link.TCXOptions{Program: prog, Interface: a.Index, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", a.Interface, err)
	}
	a.Mode = TCX
	return l, nil
}

// update makes a link run the program that belongs to it.
func (f *Filter) update(l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if info.Type != link.TCXType {
		return l.Update(f.prog)
	}
	prog, err := f.tcxProgram()
	if err != nil {
		return err
	}
	return l.Update(prog)
}

// haveTCX probes for TCX links: a kernel that knows them misses the interface,
// one that does not refuses the kind.
func haveTCX() bool {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return false
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Program: prog, Interface: math.MaxInt32, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		l.Close()
	}
	return !errors.Is(err, ebpf.ErrNotSupported)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "older"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// replaceLink pins a link in the place of another, which then goes: the interface
// is never without one of the two.
func replaceLink(l link.Link, pin string) error {
	defer lastHold(pin)()
	return pinOver(l, pin)
}

// removeLink removes a pin, and the link with it.
func removeLink(pin string) error {
	defer lastHold(pin)()
	return os.Remove(pin)
}

// lastHold opens a pinned link, so that it ends with the returned call and not
// some time after its pin: the kernel defers the one and not the other.
func lastHold(pin string) (release func()) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return func() {}
	}
	return func() { l.Close() }
}
