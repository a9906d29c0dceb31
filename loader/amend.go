package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// amend applies an edit to the half in force. Of one prefix it is in force with
// the trie's change; several come into force at once where holdIndex has seen to
// it: the old index answers until the one with all of them is there.
func (f *Filter) amend(h *half, e *edit, atOnce bool) error {
	if err := h.apply(e); err != nil {
		return err
	}
	e.prefixes.apply(e.puts, e.removes)
	if atOnce {
		if err := f.putIndex(buildIndex(e.prefixes)); err != nil {
			return err
		}
	}
	if len(e.idleRules)+len(e.idle) > 0 {
		if !atOnce { // an index of a process that died may still name them
			if err := f.dropIndex(); err != nil {
				return err
			}
		}
		if err := f.awaitPackets(h); err != nil {
			return err
		}
		if err := writeSlots(h.rows, e.idle); err != nil {
			return fmt.Errorf("clear entries: %w", err)
		}
	}
	e.settle()
	f.table = e.table
	if atOnce {
		return nil
	}
	return f.reindex()
}

// holdIndex sees that an index without the edit answers while the tries are
// changed, if the index is asked about all of its prefixes. Else, and for a
// single prefix, none answers from here on.
func (f *Filter) holdIndex(e *edit) (held bool, err error) {
	n := e.prefixesChanged()
	if n == 0 {
		return false, nil
	}
	st, err := f.state()
	if err != nil {
		return false, err
	}
	if n == 1 || !e.indexed() {
		return false, f.dropIndex()
	}
	if st.index() == noIndex || !f.indexer.whole {
		if err := f.putIndex(buildIndex(e.prefixes)); err != nil {
			return false, err
		}
		if !f.indexer.whole {
			return false, f.dropIndex()
		}
		if st, err = f.state(); err != nil {
			return false, err
		}
	}
	var head filterIndex
	if err := f.maps.Indexes.Lookup(st.index()-1, &head); err != nil {
		return false, fmt.Errorf("read the index: %w", err)
	}
	if e.has6() && head.V6 == 0 {
		return false, f.dropIndex()
	}
	return true, nil
}

// apply makes the edit's changes in the half's maps.
func (h *half) apply(e *edit) error {
	if err := h.write(e); err != nil {
		return err
	}
	for _, prefix := range e.removes {
		if err := h.remove(prefix); err != nil {
			return fmt.Errorf("remove %s: %w", prefix, err)
		}
	}
	return nil
}

// write puts what the edit adds: entries before the rules that name them, rules
// before the prefixes that point to them.
func (h *half) write(e *edit) error {
	if err := writeSlots(h.rows, e.newEntries); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	if err := h.changeEntries(e.oldEntries); err != nil {
		return fmt.Errorf("change entries: %w", err)
	}
	if err := writeSlots(h.rules, e.putRules); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	for prefix, slot := range e.puts {
		if err := h.put(prefix, slot); err != nil {
			return fmt.Errorf("write %s: %w", prefix, err)
		}
	}
	return nil
}

func (h *half) put(p netip.Prefix, slot uint32) error {
	if p.Addr().Is4() {
		return h.v4.Put(key4(p), slot)
	}
	return h.v6.Put(key6(p), slot)
}

func (h *half) remove(p netip.Prefix) error {
	var err error
	if p.Addr().Is4() {
		err = h.v4.Delete(key4(p))
	} else {
		err = h.v6.Delete(key6(p))
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
