package loader

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/test/lab"
)

// TestVerifierHasRoom: the verifier gives up at a million instructions. A change
// that makes it look twice at everything shows here, not on somebody's kernel.
func TestVerifierHasRoom(t *testing.T) {
	f, err := Open(Options{PinDir: filepath.Join(lab.BPFFS(t), "synward")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, ok := pinnedInfo(t, f.dir.object(programPin)).VerifiedInstructions()
	if !ok || n > 500_000 {
		t.Errorf("the verifier looked at %d instructions; it gives up at 1,000,000", n)
	}
	t.Logf("%d instructions", n)
}

// pinnedInfo is what the kernel says of a pinned program.
func pinnedInfo(t *testing.T, pin string) *ebpf.ProgramInfo {
	t.Helper()
	p, err := ebpf.LoadPinnedProgram(pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}
