package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/synward/synward/agent/store"
)

// Use is how often an entry has decided an attempt, and when last.
type Use struct {
	Count uint64    `json:"count"`
	Last  time.Time `json:"last,omitzero"`
}

// use is a Use with what the kernel said last: its count starts at zero again
// when the filter is loaded anew.
type use struct {
	Use
	Kernel uint64 `json:"kernel"`
}

// Reading is what the kernel says of one source under one entry.
type Reading struct {
	Entry    uint64
	Source   netip.Prefix
	Admitted uint64
}

// Uses adds up the kernel's counts over its restarts.
type Uses struct {
	path string

	mu      sync.Mutex
	since   time.Time
	entries map[uint64]use
	sources map[string]uint64 // Admitted by entry and source
	dirty   bool
}

type usesFile struct {
	Since   time.Time         `json:"since"`
	Entries map[uint64]use    `json:"entries"`
	Sources map[string]uint64 `json:"sources"`
}

// OpenUses reads what was saved. The error, which leaves an empty Uses, says
// that the file could not be read.
func OpenUses(path string, now time.Time) (*Uses, error) {
	u := &Uses{path: path, since: now.UTC().Truncate(time.Second), entries: map[uint64]use{}, sources: map[string]uint64{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		u.dirty = true // since when uses are known is worth keeping, though nothing uses anything yet
		return u, nil
	}
	var f usesFile
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return u, fmt.Errorf("read the entries' uses %s: %w", path, err)
	}
	if f.Since.Before(u.since) { // else the clock was ahead when it began
		u.since = f.Since
	}
	for id, e := range f.Entries {
		u.entries[id] = e
	}
	for k, n := range f.Sources {
		u.sources[k] = n
	}
	return u, nil
}

// grown is by how much a counter of the kernel's has grown.
func grown(was, now uint64) uint64 {
	if now < was {
		return now
	}
	return now - was
}

// Hits takes over the kernel's counts per entry. Entries that keep says nothing
// of are forgotten.
func (u *Uses) Hits(now map[uint64]Use, keep func(id uint64) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, e := range u.entries {
		if _, there := now[id]; !there && e.Kernel != 0 {
			e.Kernel = 0
			u.entries[id], u.dirty = e, true
		}
		if !keep(id) {
			delete(u.entries, id)
			u.dirty = true
		}
	}
	for id, k := range now {
		e := u.entries[id]
		n := grown(e.Kernel, k.Count)
		if n == 0 || !keep(id) {
			continue
		}
		e.Count, e.Kernel = e.Count+n, k.Count
		if k.Last.After(e.Last) {
			e.Last = k.Last.UTC().Truncate(time.Second)
		}
		u.entries[id], u.dirty = e, true
	}
}

// Sources takes over the kernel's counts per source, and returns by how much
// each has grown.
func (u *Uses) Sources(now []Reading) []Reading {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := make(map[string]uint64, len(now))
	var out []Reading
	for _, r := range now {
		key := fmt.Sprintf("%d %s", r.Entry, r.Source)
		next[key] = r.Admitted
		if n := grown(u.sources[key], r.Admitted); n > 0 {
			out = append(out, Reading{Entry: r.Entry, Source: r.Source, Admitted: n})
		}
	}
	u.dirty = u.dirty || len(out) > 0 || len(next) != len(u.sources)
	u.sources = next
	return out
}

// Of is the use of an entry.
func (u *Uses) Of(id uint64) Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.entries[id].Use
}

// Since is from when on uses are known.
func (u *Uses) Since() time.Time { return u.since }

// Save writes what has changed.
func (u *Uses) Save() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.dirty {
		return nil
	}
	data, err := json.Marshal(usesFile{Since: u.since, Entries: u.entries, Sources: u.sources})
	if err == nil {
		err = store.WriteFile(u.path, data)
	}
	if err == nil {
		u.dirty = false
	}
	return err
}

// IDs are the entries whose use is known.
func (u *Uses) IDs() []uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]uint64, 0, len(u.entries))
	for id := range u.entries {
		out = append(out, id)
	}
	return out
}
