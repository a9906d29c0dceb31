package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/droplog"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// How often the kernel is asked who has come, and the journal goes to disk.
const (
	readUses = 10 * time.Second
	saveUses = time.Minute
)

// easeUses is how much longer than a reading takes the next one waits: the kernel's
// counts of a million entries keep a core busy for a second.
const easeUses = 50

// journals are what the agent remembers of the ports.
type journals struct {
	attempts *journal.Attempts
	uses     *journal.Uses
	log      *journal.Log
}

// openJournal opens what is on disk. None of it is needed to enforce: what
// cannot be read is said, and begins anew.
func (a *Agent) openJournal(dir string) {
	var err1, err2, err3 error
	a.journal.attempts, err1 = journal.OpenAttempts(dir, a.keep.Days, a.keep.Attempts, a.now())
	a.journal.uses, err2 = journal.OpenUses(filepath.Join(dir, "uses.json"), a.now())
	a.journal.log, err3 = journal.OpenLog(dir, "events", a.keep.Events)
	a.problem("journal", errors.Join(err1, err2, err3))
}

// watchUse keeps the journal until the context ends.
func (a *Agent) watchUse(ctx context.Context) error {
	read, save := time.NewTimer(readUses), time.NewTicker(saveUses)
	defer read.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			a.problem("uses", a.readUse())
			a.problem("journal", a.saveUse())
			return a.journal.log.Close()
		case <-read.C:
			began := time.Now()
			a.problem("uses", errors.Join(a.readUse(), a.tellTails()))
			read.Reset(max(readUses, time.Since(began)*easeUses))
		case <-save.C:
			a.problem("journal", a.saveUse())
		}
	}
}

func (a *Agent) saveUse() error {
	return errors.Join(a.journal.attempts.Save(a.now()), a.journal.uses.Save())
}

// readUse takes over what the kernel has counted since the last time: hits by
// entry, and the connections of sources that passed.
func (a *Agent) readUse() error {
	a.reading.Lock()
	defer a.reading.Unlock()
	hits, err := a.kernel.Hits()
	if err != nil {
		return fmt.Errorf("read hits: %w", err)
	}
	sources, err := a.kernel.Sources()
	if err != nil {
		return err
	}
	set, p := a.state()
	ids := map[uint64]bool{}
	uses := make(map[uint64]journal.Use, len(hits))
	for id, h := range hits {
		ids[id], uses[id] = true, journal.Use{Count: h.Count, Last: h.Last}
	}
	for _, s := range sources {
		ids[s.EntryID] = true
	}
	for _, id := range a.journal.uses.IDs() {
		ids[id] = true
	}
	entries := set.ByID(ids)
	a.journal.uses.Hits(uses, func(id uint64) bool { _, is := entries[id]; return is })
	return a.countPassed(sources, entries, p)
}

// countPassed counts the connections of sources that passed.
func (a *Agent) countPassed(sources []loader.Source, entries map[uint64]policy.Entry, p plan) error {
	var now []journal.Reading
	for _, s := range sources {
		if e, known := entries[s.EntryID]; known && !s.Prefix.IsValid() {
			s.Prefix = e.Prefix
		}
		if s.Prefix.IsValid() {
			now = append(now, journal.Reading{Entry: s.EntryID, Source: s.Prefix, Admitted: s.Admitted})
		}
	}
	more := a.journal.uses.Sources(now)
	if len(more) == 0 {
		return nil
	}
	conns, err := connections(p.numbers())
	for _, r := range more {
		k := journal.Kind{Source: r.Source, Passed: true, Reason: loader.Allowed.String(), Entry: r.Entry}
		if r.Entry == 0 {
			k.Reason = loader.DefaultPass.String()
		}
		k.Port = portOf(entries[r.Entry], r.Source, conns, p)
		err = errors.Join(err, a.journal.attempts.Add(k, r.Admitted, a.now()))
	}
	return err
}

// portOf is the port that a source has come to, as far as it can be known: the
// kernel counts connections by entry. 0 = it cannot.
func portOf(e policy.Entry, source netip.Prefix, conns []control.Connection, p plan) uint16 {
	if len(e.Ports) == 1 {
		return e.Ports[0]
	}
	if len(p.ports) == 1 {
		return p.ports[0].Number
	}
	var port uint16
	for _, c := range conns {
		if !source.Contains(c.Source.Addr()) {
			continue
		}
		if n := c.Local.Port(); port != 0 && port != n {
			return 0 // more than one
		} else {
			port = n
		}
	}
	return port
}

// sourceOf is the source that an address belongs to.
func (p plan) sourceOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = p.caps.IPv6Prefix
	}
	s, err := a.Prefix(bits)
	if err != nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return s
}

// note puts an event into the ring, on disk and among the attempts.
func (a *Agent) note(e control.Event) {
	a.noting.Lock()
	a.events.add(e)
	err := a.journal.log.Append(e)
	a.noting.Unlock()
	if e.Source.IsValid() && !e.Source.IsUnspecified() {
		_, p := a.state()
		d := droplog.Drop{Source: p.sourceOf(e.Source), Port: e.Port, Reason: e.Reason, Interface: e.Interface, Observed: e.Observed}
		a.drops.Add(d, uint64(max(e.Count, 1)), uint64(e.Suppressed))
		k := journal.Kind{Source: p.sourceOf(e.Source), Port: e.Port, Passed: e.Observed, Observed: e.Observed, Reason: e.Reason, Entry: e.EntryID}
		err = errors.Join(err, a.journal.attempts.Add(k, uint64(max(e.Count, 1)), e.Time))
	}
	a.problem("events on disk", err)
}
