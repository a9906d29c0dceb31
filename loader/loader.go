// Package loader is the only code that talks to the kernel about the filter.
package loader

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Errors that callers may test for with errors.Is.
var (
	ErrNotLoaded    = errors.New("no filter is loaded")             // nothing pinned
	ErrOtherVersion = errors.New("pins of another version")         // layout does not fit this program
	ErrBusy         = errors.New("another agent holds the pins")    // lock file taken
	ErrForeign      = errors.New("another XDP program is attached") // somebody else's
)

// Mode is how a filter is attached to an interface.
type Mode string

// The modes. Auto is native, else generic with a warning.
const (
	Auto    Mode = "auto"
	Native  Mode = "native"
	Generic Mode = "generic"
)

// Options configure Open.
type Options struct {
	PinDir string // on bpffs, made where it is missing
	Log    *slog.Logger
}

// Filter is the loaded program with its maps and links. Methods may be called
// from several goroutines.
type Filter struct{}

// Open loads the filter, or re-opens the one that is pinned in the directory;
// a newer program replaces the pinned one under its links without a gap.
// It holds a lock on the pins until Close.
func Open(o Options) (*Filter, error) { return nil, errors.New("not here yet") }

// View opens a pinned filter for reading, without the lock: for commands that
// must work with the agent down.
func View(pinDir string) (*Filter, error) { return nil, ErrNotLoaded }

// Unload detaches every link and removes every pin. done is false where there was nothing.
func Unload(pinDir string) (done bool, err error) { return false, nil }

// Close releases this process's hold. The kernel goes on enforcing.
func (f *Filter) Close() error { return nil }

// Attachment is one interface that the filter is on.
type Attachment struct {
	Interface string    `json:"interface"`
	Index     int       `json:"index"`
	Mode      Mode      `json:"mode"` // native or generic
	Since     time.Time `json:"-"`
	Warning   string    `json:"warning,omitempty"` // why generic, in words
}

// Attach puts the filter on an interface; where it is there already it makes
// sure that the current program runs there. Idempotent.
func (f *Filter) Attach(name string, mode Mode) (Attachment, error) { return Attachment{}, nil }

// Detach takes the filter off an interface.
func (f *Filter) Detach(name string) error { return nil }

// Attachments lists the interfaces with a live link of ours.
func (f *Filter) Attachments() ([]Attachment, error) { return nil, nil }

// Change counts what Sync had to mend.
type Change struct{ Added, Updated, Removed int }

// Sync makes the kernel's rules equal the policy: additions before removals,
// in force when it returns. It reads the maps first, so it also mends what
// somebody changed behind the agent's back.
func (f *Filter) Sync(p rule.Policy) (Change, error) { return Change{}, nil }

// Answer is the kernel's verdict on a SYN.
type Answer struct {
	Verdict rule.Verdict `json:"verdict"`
	Observe bool         `json:"observe"` // the verdict is counted, but not enforced
	Reason  Reason       `json:"reason"`
	EntryID uint64       `json:"entry_id"` // 0 = none decided
}

// Probe asks the loaded program for the verdict on a SYN from src to port now,
// by a test run that moves no counter and no cap.
func (f *Filter) Probe(src netip.Addr, port uint16) (Answer, error) { return Answer{}, nil }

// Reason says why a verdict was given; append-only numbers, see bpf/abi.h.
type Reason uint32

// String returns the reason's name as status and events print it, e.g. "no-entry".
func (r Reason) String() string { return "" }

// Counter is the number of packets with a reason on a port; Port 0 is for
// packets that belong to no protected port in sight.
type Counter struct {
	Port    uint16       `json:"port"`
	Reason  Reason       `json:"reason"`
	Verdict rule.Verdict `json:"verdict"`
	Packets uint64       `json:"packets"`
}

// Counters reads the per-CPU counters, summed, those that are not zero.
func (f *Filter) Counters() ([]Counter, error) { return nil, nil }

// Hit is how often an entry has decided an attempt, and when last.
type Hit struct {
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// Hits reads the hits by entry ID.
func (f *Filter) Hits() (map[uint64]Hit, error) { return nil, nil }

// Event is one record of the kernel's ring buffer: attempts of one source
// that were refused (or would have been, in observe mode).
type Event struct {
	Time      time.Time  `json:"time"`
	Source    netip.Addr `json:"source"`
	Port      uint16     `json:"port"`
	Reason    Reason     `json:"reason"`
	Observe   bool       `json:"observe"` // it was let pass
	EntryID   uint64     `json:"entry_id,omitempty"`
	Interface int        `json:"ifindex"`
	Count     uint32     `json:"count"` // attempts that this record stands for
}

// Events calls fn for every event until the context ends (nil) or reading fails.
func (f *Filter) Events(ctx context.Context, fn func(Event)) error { <-ctx.Done(); return nil }
