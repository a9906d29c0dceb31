package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// The maps within maps are pinned as well, each beside the one that holds it: to
// open one by its id takes CAP_SYS_ADMIN, which the agent does without.

func (f *Filter) innerPin(name string, index uint32) string {
	return filepath.Join(f.home, fmt.Sprintf("%s-%d", name, index))
}

// openInner opens what an outer map holds at an index. The error wraps
// ebpf.ErrKeyNotExist where that is nothing, or a map without a pin.
func (f *Filter) openInner(outer *ebpf.Map, name string, index uint32) (*ebpf.Map, error) {
	var id uint32
	if err := outer.Lookup(index, &id); err != nil {
		return nil, err
	}
	pin := f.innerPin(name, index)
	for _, path := range []string{pin, pin + "-new"} { // -new: a run that died in putInner
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info, err := m.Info(); err == nil {
			if have, ok := info.ID(); ok && uint32(have) == id {
				return m, nil
			}
		}
		m.Close()
	}
	return nil, fmt.Errorf("%s: %w", pin, ebpf.ErrKeyNotExist)
}

// putInner puts a map into an outer one. The kernel waits for a grace period with
// it (maybe_wait_bpf_programs, Linux 5.0).
func (f *Filter) putInner(outer *ebpf.Map, name string, index uint32, m *ebpf.Map) error {
	pin := f.innerPin(name, index)
	_ = os.Remove(pin + "-new") // a run that died here
	if err := m.Pin(pin + "-new"); err != nil {
		return err
	}
	if err := outer.Put(index, m); err != nil {
		return errors.Join(err, os.Remove(pin+"-new"))
	}
	return os.Rename(pin+"-new", pin)
}
