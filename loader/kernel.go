package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// abiVersion is ABI_VERSION of bpf/abi.h. A test holds it against the object.
const abiVersion = 2

// bpfFXDPHasFrags is BPF_F_XDP_HAS_FRAGS: the program takes multi-buffer
// frames (Linux 5.18).
const bpfFXDPHasFrags = 1 << 5

// errNotPermitted is what the kernel says to who lacks one of the three.
var errNotPermitted = errors.New("not permitted: run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")

// checkKernel says in words what this kernel or this process lacks.
func checkKernel() error {
	if err := features.HaveProgramType(ebpf.XDP); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("load the filter: %w", errNotPermitted)
		}
		return fmt.Errorf("load the filter: %w: no XDP (%v); Linux 5.15 or newer is needed", ErrUnsupported, err)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("load the filter: %w: no BTF (%v); use a kernel with CONFIG_DEBUG_INFO_BTF, as the distributions' are", ErrUnsupported, err)
	}
	if err := features.HaveProgramHelper(ebpf.XDP, asm.FnKtimeGetCoarseNs); errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("load the filter: %w: too old; Linux 5.15 or newer is needed", ErrUnsupported)
	}
	return nil
}

// adaptSpec takes out of the spec what an older kernel does not know and what
// only serves the generator.
func adaptSpec(spec *ebpf.CollectionSpec) {
	for _, s := range spec.Maps {
		s.Pinning = ebpf.PinNone
	}
	if !haveFrags() {
		spec.Programs[filterProgSynward].Flags &^= bpfFXDPHasFrags
	}
}

// haveFrags probes for multi-buffer XDP, Linux 5.18.
func haveFrags() bool {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:  ebpf.XDP,
		Flags: bpfFXDPHasFrags,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 2),
			asm.Return(),
		},
		License: "GPL",
	})
	if err != nil {
		return false
	}
	prog.Close()
	return true
}

// explainLoad keeps of a verifier's refusal the line that says why.
func explainLoad(err error) error {
	var ve *ebpf.VerifierError
	if !errors.As(err, &ve) || len(ve.Log) == 0 {
		if errors.Is(err, unix.EPERM) { // without CAP_PERFMON XDP loads, the ledger does not
			return errNotPermitted
		}
		return err
	}
	last := strings.TrimSpace(ve.Log[len(ve.Log)-1])
	if strings.HasPrefix(last, "processed ") && len(ve.Log) > 1 {
		last = strings.TrimSpace(ve.Log[len(ve.Log)-2])
	}
	return fmt.Errorf("%w: the verifier refused it: %s", ErrUnsupported, last)
}
