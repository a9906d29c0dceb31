// Package droplog says in the log what the filter has dropped: one line for a
// source, port and reason in a period, and never more than a bounded number of
// lines, however many strangers come.
package droplog

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The bounds of one period.
const (
	period   = 10 * time.Second
	maxLines = 20
	maxKinds = 4096 // that are told apart; the attempts of others are only counted
)

// Drop is what a line is about. Source is one address, or the prefix that is
// one source.
type Drop struct {
	Source    netip.Prefix
	Port      uint16
	Reason    string
	Interface string
	Observed  bool // it would have been dropped
}

// Log collects drops. Its methods may be called at any time from anywhere.
type Log struct {
	log *slog.Logger

	mu         sync.Mutex
	kinds      map[Drop]uint64
	others     uint64 // attempts for which there was no room
	suppressed uint64 // records that the kernel's own limit held back
}

// New makes a log of drops.
func New(log *slog.Logger) *Log {
	return &Log{log: log.With("component", "filter"), kinds: map[Drop]uint64{}}
}

// Add counts attempts, and the records before them that the kernel held back.
func (l *Log) Add(d Drop, attempts, suppressed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suppressed += suppressed
	if _, ok := l.kinds[d]; !ok && len(l.kinds) >= maxKinds {
		l.others += attempts
		return
	}
	l.kinds[d] += attempts
}

// Run writes the lines of every period until the context ends, and then those
// of the last (nil).
func (l *Log) Run(ctx context.Context) error {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			l.Flush()
			return nil
		case <-t.C:
			l.Flush()
		}
	}
}

// Flush writes what has come since the last time: the kinds with the most
// attempts, and one line for all the rest.
func (l *Log) Flush() {
	l.mu.Lock()
	kinds, others, suppressed := l.kinds, l.others, l.suppressed
	l.kinds, l.others, l.suppressed = map[Drop]uint64{}, 0, 0
	l.mu.Unlock()
	order := make([]Drop, 0, len(kinds))
	for d := range kinds {
		order = append(order, d)
	}
	slices.SortFunc(order, func(x, y Drop) int {
		return cmp.Or(cmp.Compare(kinds[y], kinds[x]), x.Source.Addr().Compare(y.Source.Addr()), cmp.Compare(x.Port, y.Port), cmp.Compare(x.Reason, y.Reason))
	})
	n := min(len(order), maxLines)
	for _, d := range order[:n] {
		l.log.Info("attempts dropped", "source", source(d.Source), "port", d.Port, "reason", d.Reason, "interface", d.Interface,
			"observed", d.Observed, "attempts", kinds[d])
	}
	for _, d := range order[n:] {
		others += kinds[d]
	}
	if others+suppressed > 0 {
		l.log.Info("more attempts dropped", "kinds", len(order)-n, "attempts", others, "suppressed", suppressed)
	}
}

// source is the address of a source that is one, else its prefix.
func source(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
