package mx

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// kept is a policy as the file has it.
type kept struct {
	Domain string    `json:"domain"`
	ID     string    `json:"id"`
	Mode   string    `json:"mode"`
	MX     []string  `json:"mx,omitempty"`
	Until  time.Time `json:"until"`
}

// saveEvery is how often the policies are written, at most.
const saveEvery = 30 * time.Second

// maxKept bounds the file, in bytes.
const maxKept = 64 << 20

// keeper writes policies to a file, so that a restart gives nobody who can
// suppress the record or the fetch a domain without a policy (RFC 8461 5.1, 10.2).
type keeper struct {
	path string // empty: none are kept
	list func() []kept
	say  func(error)

	mu    sync.Mutex
	last  time.Time // written
	timer *time.Timer
}

// changed writes them, now or soon.
func (k *keeper) changed() {
	if k.path == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer != nil {
		return
	}
	if wait := saveEvery - time.Since(k.last); wait > 0 {
		k.timer = time.AfterFunc(wait, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.timer = nil
			k.write()
		})
		return
	}
	k.write()
}

// write replaces the file. The caller holds the lock.
func (k *keeper) write() {
	k.last = time.Now()
	b, err := json.Marshal(k.list())
	tmp := k.path + ".new"
	if err == nil {
		err = os.WriteFile(tmp, b, 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, k.path)
	}
	if err != nil {
		k.say(fmt.Errorf("keep MTA-STS policies: %w", err))
	}
}

// readKept reads what a file has that holds still. Policies of another form, as
// by a damaged file, are none.
func readKept(path string, now time.Time) ([]kept, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && fi.Size() > maxKept {
		err = fmt.Errorf("%s has %d bytes", path, fi.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var all []kept
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read MTA-STS policies: %w", err)
	}
	return slices.DeleteFunc(all, func(p kept) bool {
		known := p.Mode == modeEnforce || p.Mode == modeTesting || p.Mode == modeNone
		return !known || p.Domain == "" || p.Mode != modeNone && len(p.MX) == 0 || !now.Before(p.Until) || p.Until.Sub(now) > maxAge
	}), nil
}
