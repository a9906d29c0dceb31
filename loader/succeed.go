package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A filter whose maps have another layout, an older version's or a newer one's,
// goes on enforcing while this build's is made beside it. The first Sync fills
// that one, counts the open connections anew, and only then moves the interfaces
// over: no packet meets a filter without its policy.

// errNoPolicy says that a filter that is to follow another one has no policy yet.
var errNoPolicy = errors.New("the filter has no policy yet: sync first")

// createBeside makes this build's filter next to the pinned one.
func (f *Filter) createBeside() error {
	var objs filterObjects
	kept := f.keptMaps()
	defer closeMaps(kept)
	if err := f.spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{MapReplacements: kept}); err != nil {
		return fmt.Errorf("load the new filter (the old one goes on): %w", explainLoad(err))
	}
	f.prog, f.ledger, f.maps = objs.Synward, objs.filterPrograms, objs.filterMaps
	f.closers = append(f.closers, objs.Close)
	if err := f.begin(); err != nil {
		return err
	}
	if err := f.takeOverPorts(); err != nil {
		return err
	}
	f.home, f.succeeds = f.dir.stagingDir(), true
	f.closers = append(f.closers, f.giveUp)
	f.log.Info("the loaded filter is another version's: it goes on until this one has its policy")
	return f.dir.stage(f.prog, f.byName())
}

// giveUp forgets a filter that never came to follow the old one.
func (f *Filter) giveUp() error {
	if !f.succeeds {
		return nil
	}
	return os.RemoveAll(f.dir.stagingDir())
}

// keptMaps are the old filter's counters and events, as far as they have the
// layout that this build's program wants: they go on.
func (f *Filter) keptMaps() map[string]*ebpf.Map {
	kept := map[string]*ebpf.Map{}
	for _, name := range []string{filterMapCounters, filterMapEvents, filterMapRecent, filterMapBudget} {
		m, err := ebpf.LoadPinnedMap(f.dir.object(name), nil)
		if err != nil {
			continue
		}
		if f.spec.Maps[name].Compatible(m) != nil {
			m.Close()
			continue
		}
		kept[name] = m
	}
	return kept
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// takeOverPorts tells moveCounters which ports the counters that go on are of.
// Settings of every version begin with the ports, a state with version and word.
func (f *Filter) takeOverPorts() error {
	state, err := f.oldValue(filterMapStates, 0)
	if err != nil || len(state) < 8 {
		return nil // there is nothing to go by
	}
	was, err := f.oldValue(filterMapConfigs, binary.NativeEndian.Uint32(state[4:])&1)
	cfg := make([]filterConfig, 1)
	size := len(bytesOf(cfg[0].Ports[:]))
	if err != nil || len(was) < size {
		return nil
	}
	copy(bytesOf(cfg[0].Ports[:]), was)
	for i := range cfg[0].Ports {
		cfg[0].Ports[i] = filterPort{Number: cfg[0].Ports[i].Number}
	}
	if err := f.maps.Configs.Put(uint32(0), cfg[0]); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	return nil
}

func (f *Filter) oldValue(name string, key uint32) ([]byte, error) {
	m, err := ebpf.LoadPinnedMap(f.dir.object(name), nil)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.LookupBytes(key)
}

// takeOver moves everything to this build's filter, which has its policy now.
// Where that fails the old one is as it was.
func (f *Filter) takeOver() error {
	if err := f.arm(); err != nil {
		return err
	}
	if _, err := f.attachLedger(); err != nil {
		return errors.Join(err, f.dropLedger())
	}
	if err := errors.Join(f.countHere(), f.syncWatches()); err != nil {
		return errors.Join(err, f.dropLedger())
	}
	if err := f.updateLinks(); err != nil {
		return errors.Join(fmt.Errorf("put the new filter in place: %w", err), f.putBack(), f.dropLedger())
	}
	if err := f.dir.exchange(); err != nil {
		return errors.Join(err, f.putBack(), f.dropLedger())
	}
	f.home, f.succeeds = f.dir.filterDir(), false
	f.log.Info("filter upgraded: the new one has taken over")
	// Not before: the old filter would not see its servers' answers, had it to go on.
	return errors.Join(f.updateEgresses(), f.pinTCX(), f.settleLedger())
}

// putBack makes every link run the old filter's program again.
func (f *Filter) putBack() error {
	old, err := ebpf.LoadPinnedProgram(f.dir.object(programPin), nil)
	if err != nil {
		return fmt.Errorf("go back to the old filter: %w", err)
	}
	defer old.Close()
	now, nowTCX := f.prog, f.tcx
	f.prog, f.tcx = old, f.pinnedTCX()
	defer func() { f.prog, f.tcx = now, nowTCX }()
	return f.updateLinks()
}

// exchange makes the staged filter the pinned one, at once (bpffs, Linux 5.17),
// and forgets the old one.
func (d pinDir) exchange() error {
	err := unix.Renameat2(unix.AT_FDCWD, d.stagingDir(), unix.AT_FDCWD, d.filterDir(), unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) {
		if err = os.RemoveAll(d.filterDir()); err == nil {
			err = os.Rename(d.stagingDir(), d.filterDir())
		}
	}
	if err != nil {
		return fmt.Errorf("pin the new filter: %w", err)
	}
	return os.RemoveAll(d.stagingDir())
}
