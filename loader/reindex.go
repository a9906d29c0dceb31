package loader

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
)

// noIndex in the state's word lets the tries answer.
const noIndex = 0

// indexEagerly is up to how many prefixes the index is built before Sync and
// Update return: it then takes less than they do.
const indexEagerly = 20_000

// indexer builds an index while the tries answer. Building and filling take long,
// so followRules does both without f.mu.
type indexer struct {
	wg      sync.WaitGroup
	busy    bool       // one is being built
	buffer  uint32     // the one that was turned to last, 0 or 1
	whole   bool       // this process turned to it, and no chunk was left out
	claims  uint64     // how often a buffer was taken to be filled
	filling sync.Mutex // held from then until it is full; locked after f.mu
}

func (s filterState) half() uint32 { return s.Current & 1 }

// index is which index answers: 0 = none, or the buffer + 1.
func (s filterState) index() uint32 { return s.Current >> 1 & 0x7f }

// turn brings st's half into force, with the index in a buffer or with none (nil),
// by the one word that every packet reads: see struct state in bpf/abi.h. f.mu is
// held.
func (f *Filter) turn(st filterState, buffer uint32, x *image) error {
	st.Current = st.half()
	if x != nil {
		f.indexer.buffer, f.indexer.whole = buffer, x.left == 0
		st.Current |= (buffer+1)<<1 | x.touched4.grain<<8 | x.touched6.grain<<16
	}
	if err := f.maps.States.Put(uint32(0), st); err != nil {
		return fmt.Errorf("turn to another half or index: %w", err)
	}
	return nil
}

// turnIndex is turn for the half in force.
func (f *Filter) turnIndex(buffer uint32, x *image) error {
	st, err := f.state()
	if err != nil {
		return err
	}
	return f.turn(st, buffer, x)
}

// dropIndex lets the tries answer.
func (f *Filter) dropIndex() error { return f.turnIndex(0, nil) }

// reindex builds the index of the table in force, at once where it is small,
// else in the background. f.mu is held.
func (f *Filter) reindex() error {
	t := f.table
	if t.prefixes.len() <= indexEagerly {
		return f.putIndex(buildIndex(t.prefixes))
	}
	if !f.indexer.busy {
		f.indexer.busy = true
		f.indexer.wg.Go(f.followRules)
	}
	return nil
}

// followRules builds indexes until one is of the rules in force: of several
// changes in a row, only the last needs one.
func (f *Filter) followRules() {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.indexer.busy = false }()
	for f.table != nil {
		done, err := f.follow(f.table.prefixes)
		if err != nil {
			f.log.Error("the index could not be built, the tries answer alone", "error", err)
		}
		if done || err != nil {
			return
		}
	}
}

// follow brings an index of what the tries hold into force, unless that is no
// longer so. f.mu is held, but not meanwhile.
func (f *Filter) follow(m mirror) (done bool, err error) {
	current := func() bool { return f.table != nil && sameSlices(f.table.prefixes, m) }
	f.mu.Unlock()
	x := buildIndex(m) // merge never writes to the slices that it has handed out
	f.mu.Lock()
	if !current() {
		return false, nil
	}
	b, err := f.claimBuffer()
	if err != nil {
		return false, err
	}
	claim := f.indexer.claims
	f.mu.Unlock()
	err = f.fillBuffer(b, x)
	f.mu.Lock()
	if err != nil || !current() || f.indexer.claims != claim {
		return false, err
	}
	return true, f.turnIndex(b, x)
}

func sameSlices(a, b mirror) bool {
	return len(a.v4) == len(b.v4) && len(a.v6) == len(b.v6) &&
		unsafe.SliceData(a.v4) == unsafe.SliceData(b.v4) && unsafe.SliceData(a.v6) == unsafe.SliceData(b.v6)
}

// Indexed waits until the index follows the rules, and says whether it answers.
func (f *Filter) Indexed() (bool, error) {
	f.indexer.wg.Wait()
	st, err := f.state()
	return st.index() != noIndex, err
}

// putIndex copies an index into the buffer that is not in force and turns to it.
func (f *Filter) putIndex(x *image) error {
	b, err := f.spareBuffer(x)
	if err != nil {
		return err
	}
	return f.turnIndex(b, x)
}

// spareBuffer copies an index into the buffer that is not in force. f.mu is held.
func (f *Filter) spareBuffer(x *image) (b uint32, err error) {
	b, err = f.claimBuffer()
	if err != nil {
		return b, err
	}
	return b, f.fillBuffer(b, x)
}

// claimBuffer takes the buffer that is not in force, for fillBuffer. f.mu is held.
func (f *Filter) claimBuffer() (b uint32, err error) {
	st, err := f.state()
	if err != nil {
		return 0, err
	}
	b = 1 - f.indexer.buffer
	if st.index() == b+1 {
		if err := f.dropIndex(); err != nil {
			return 0, err
		}
	}
	f.indexer.claims++
	f.indexer.filling.Lock()
	return b, nil
}

// fillBuffer copies an index into the buffer that was claimed.
func (f *Filter) fillBuffer(b uint32, x *image) error {
	defer f.indexer.filling.Unlock()
	if err := f.awaitIndexReaders(b); err != nil {
		return err
	}
	for _, c := range []struct {
		m    *ebpf.Map
		data []byte
	}{
		{f.maps.Touched4, bytesOf(x.touched4.words)}, {f.maps.Touched6, bytesOf(x.touched6.words)}, {f.maps.Chunks4, bytesOf(x.chunks4)},
	} {
		half := int(c.m.MaxEntries() * c.m.ValueSize() / 2) // a buffer, which small policies leave in part
		if err := copyTo(c.m, int(b)*half, c.data); err != nil {
			return err
		}
	}
	if err := f.fillInner(f.maps.Chunks6, filterMapChunks6, b, bytesOf(x.chunks6), len(x.chunks6)); err != nil {
		return err
	}
	if err := f.fillInner(f.maps.Pages4, filterMapPages4, b, bytesOf(x.pages4.list), len(x.pages4.list)); err != nil {
		return err
	}
	if err := f.fillInner(f.maps.Pages6, filterMapPages6, b, bytesOf(x.pages6.list), len(x.pages6.list)); err != nil {
		return err
	}
	head := filterIndex{V6: flag32(x.v6), Mask6: uint32(max(1, len(x.chunks6)) - 1)}
	if err := f.maps.Indexes.Put(b, head); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	return nil
}

func flag32(set bool) uint32 { return uint32(flag(set)) }

// awaitIndexReaders returns when no packet reads the buffer any more: it has not
// been in force since the last index, and putting its own map in its place waits
// for what began before (see putInner).
func (f *Filter) awaitIndexReaders(b uint32) error {
	m, err := f.openInner(f.maps.Pages4, filterMapPages4, b)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil // it has never been in force
	}
	if err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	defer m.Close()
	if err := f.maps.Pages4.Put(b, m); err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	return nil
}

// fillInner fills a map that is as large as the policy wants it. A new one is
// made where the old one is too small or four times too large.
func (f *Filter) fillInner(outer *ebpf.Map, name string, b uint32, data []byte, n int) error {
	inner, err := f.openInner(outer, name, b)
	if have := 0; err == nil {
		have = int(inner.MaxEntries())
		if n <= have && (have <= 4096 || n > have/4) {
			defer inner.Close()
			return copyTo(inner, 0, data)
		}
		inner.Close()
	}
	spec := f.spec.Maps[name].InnerMap.Copy()
	spec.MaxEntries = uint32(max(1024, n+n/4))
	if inner, err = ebpf.NewMap(spec); err != nil {
		return fmt.Errorf("make room for the index: %w", err)
	}
	defer inner.Close()
	if err := copyTo(inner, 0, data); err != nil {
		return err
	}
	if err := f.putInner(outer, name, b, inner); err != nil {
		return fmt.Errorf("install the index: %w", err)
	}
	return nil
}

// copyTo copies into a map's memory.
func copyTo(m *ebpf.Map, off int, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	mem, err := m.Memory()
	if err != nil {
		return fmt.Errorf("map the index's memory: %w", err)
	}
	if _, err := mem.WriteAt(data, int64(off)); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	return nil
}

// bytesOf is the memory of a slice of values without padding.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}
