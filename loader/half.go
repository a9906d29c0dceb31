package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// trieLimit bounds one trie. Tries take memory only for what they hold.
const trieLimit = 1 << 23

// batch is how many elements go through one system call.
const batch = 4096

// half is one of the two copies of the policy maps.
type half struct {
	index               uint32
	v4, v6, rules, rows *ebpf.Map
}

// part is one inner map of a half, and the outer map that holds it.
type part struct {
	name  string // of the outer map
	outer *ebpf.Map
	inner **ebpf.Map
}

func (f *Filter) parts(h *half) []part {
	return []part{
		{filterMapPrefixes4, f.maps.Prefixes4, &h.v4}, {filterMapPrefixes6, f.maps.Prefixes6, &h.v6},
		{filterMapRules, f.maps.Rules, &h.rules}, {filterMapRows, f.maps.Rows, &h.rows},
	}
}

// openHalf takes up the inner maps of a half; nil where it was never built.
func (f *Filter) openHalf(index uint32) (*half, error) {
	h := &half{index: index}
	for _, p := range f.parts(h) {
		var err error
		*p.inner, err = f.openInner(p.outer, p.name, index)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			h.close()
			return nil, nil
		}
		if err != nil {
			h.close()
			return nil, fmt.Errorf("open half %d: %w", index, err)
		}
	}
	return h, nil
}

// newHalf makes empty inner maps with room for so many rules and entries. They
// are nobody's until install.
func (f *Filter) newHalf(index uint32, rules, entries int) (*half, error) {
	h := &half{index: index}
	size := map[string]int{
		filterMapPrefixes4: trieLimit, filterMapPrefixes6: trieLimit,
		filterMapRules: rules, filterMapRows: entries,
	}
	for _, p := range f.parts(h) {
		spec := f.spec.Maps[p.name].InnerMap.Copy()
		spec.MaxEntries = uint32(size[p.name])
		m, err := ebpf.NewMap(spec)
		if err != nil {
			h.close()
			return nil, fmt.Errorf("make room for %d rules: %w", rules, err)
		}
		*p.inner = m
	}
	return h, nil
}

// install puts the half's maps where packets would look for them.
func (f *Filter) install(h *half) error {
	for _, p := range f.parts(h) {
		if err := f.putInner(p.outer, p.name, h.index, *p.inner); err != nil {
			return fmt.Errorf("install half %d: %w", h.index, err)
		}
	}
	return nil
}

// awaitPackets returns once every packet that was under way has left the
// filter, so that what it may have looked at can be used again.
func (f *Filter) awaitPackets(h *half) error {
	if err := f.maps.Prefixes4.Put(h.index, h.v4); err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	return nil
}

func (h *half) close() {
	if h == nil {
		return
	}
	for _, m := range []*ebpf.Map{h.v4, h.v6, h.rules, h.rows} {
		if m != nil {
			m.Close()
		}
	}
}

// table reads the half back from the kernel.
func (h *half) table(ports int, offset time.Duration) (*table, error) {
	rules := make([]filterRule, 0, h.rules.MaxEntries())
	if err := eachElement(h.rules, func(r filterRule) { rules = append(rules, r) }); err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	entries := make([]filterEntry, 0, h.rows.MaxEntries())
	if err := eachElement(h.rows, func(r filterRow) { entries = append(entries, r.Entry) }); err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	var m mirror
	var err error
	if m.v4, err = readTrie(h.v4, fromKey4, compare4); err != nil {
		return nil, fmt.Errorf("read IPv4 prefixes: %w", err)
	}
	if m.v6, err = readTrie(h.v6, fromKey6, compare6); err != nil {
		return nil, fmt.Errorf("read IPv6 prefixes: %w", err)
	}
	return loadTable(ports, rules, entries, m, offset), nil
}

// eachElement reads a whole array map, in order.
func eachElement[T any](m *ebpf.Map, fn func(T)) error {
	keys, values := make([]uint32, batch), make([]T, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for _, v := range values[:n] {
			fn(v)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readTrie reads a whole trie, sorted. Nobody else writes tries while the lock
// is held.
func readTrie[K, S any](m *ebpf.Map, slot func(K, uint32) S, compare func(a, b S) int) ([]S, error) {
	var out []S
	keys, values := make([]K, batch), make([]uint32, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			out = append(out, slot(keys[i], values[i]))
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			slices.SortFunc(out, compare)
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// writeSlots writes array elements, in batches where they are many.
func writeSlots[T any](m *ebpf.Map, slots map[uint32]T) error {
	keys, values := make([]uint32, 0, batch), make([]T, 0, batch)
	flush := func() error {
		if len(keys) == 0 {
			return nil
		}
		_, err := m.BatchUpdate(keys, values, nil)
		keys, values = keys[:0], values[:0]
		return err
	}
	for slot, v := range slots {
		keys, values = append(keys, slot), append(values, v)
		if len(keys) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// changeEntries changes entries in place, beside hits that are being counted.
func (h *half) changeEntries(entries map[uint32]filterEntry) error {
	if len(entries) == 0 {
		return nil
	}
	mem, err := h.rows.Memory()
	if err != nil {
		return err
	}
	for slot, e := range entries {
		if _, err := mem.WriteAt(bytesOf([]filterEntry{e}), entryAt(slot)); err != nil {
			return err
		}
	}
	return nil
}

// Where a row's parts stand in the map's memory.
func entryAt(slot uint32) int64 { return int64(slot) * int64(unsafe.Sizeof(filterRow{})) }
func hitAt(slot uint32) int64   { return entryAt(slot) + int64(unsafe.Offsetof(filterRow{}.Hit)) }

// The tries' keys hold addresses in network order, whatever the host's is.

func key4(p netip.Prefix) filterPrefix4 {
	a := p.Addr().As4()
	return filterPrefix4{Len: uint32(p.Bits()), Addr: binary.NativeEndian.Uint32(a[:])}
}

func fromKey4(k filterPrefix4, rule uint32) slot4 {
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], k.Addr)
	return newSlot4(netip.PrefixFrom(netip.AddrFrom4(a), int(k.Len)), rule)
}

func key6(p netip.Prefix) filterPrefix6 {
	k := filterPrefix6{Len: uint32(p.Bits())}
	a := p.Addr().As16()
	for i := range k.Addr {
		k.Addr[i] = binary.NativeEndian.Uint32(a[i*4:])
	}
	return k
}

func fromKey6(k filterPrefix6, rule uint32) slot6 {
	var a [16]byte
	for i, w := range k.Addr {
		binary.NativeEndian.PutUint32(a[i*4:], w)
	}
	return newSlot6(netip.PrefixFrom(netip.AddrFrom16(a), int(k.Len)), rule)
}
