package agent

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// intent is who wants a change, why, and how it is to be made.
type intent struct {
	by      string
	uid     *uint32 // nil = the agent itself
	command string  // for history
	why     string
	dryRun  bool
	show    int           // of the entries of each kind in the answer; 0 = all
	kill    bool          // end connections that no longer pass
	confirm time.Duration // undo it after that time, unless it is confirmed; 0 = it stays
	undoes  uint64        // the change that this one undoes
	ends    bool          // it may come while another waits for a confirmation, and ends the wait
}

// asked is the intent of a request over the control socket.
func asked(r *http.Request, command, why string, dryRun, kill bool) intent {
	c := control.CallerOf(r.Context())
	show, _ := strconv.Atoi(r.URL.Query().Get("show")) // one that is none: all
	return intent{show: show, by: c.String(), uid: &c.UID, command: command, why: why, dryRun: dryRun, kill: kill}
}

// own is the intent of the agent itself.
func own(command, why string) intent { return intent{by: "agent", command: command, why: why} }

// mayWait says whether the change is an operator's, so that another one's wait
// for its confirmation holds it up.
func (in intent) mayWait() bool { return in.uid != nil && !in.ends && !in.dryRun }

// edit is a change to the policy in the making: a copy of the set. settle tells
// what differs in the end.
type edit struct {
	was       *policy.Set
	set       *policy.Set
	changes   policy.Changes
	unchanged int
	missing   []netip.Prefix
	warnings  []string
	born      []policy.Key // names and feeds that come with it, without prefix
	docs      store.Batch  // documents that go with it
	undoDocs  store.Batch
}

func newEdit(s *policy.Set) *edit { return &edit{was: s, set: s.Clone()} }

// put adds or replaces an entry.
func (e *edit) put(entry policy.Entry) { e.set.Put(e.kept(entry)) }

// kept is an entry, and counts it, where it means what it meant before: who made
// it and when stays too.
func (e *edit) kept(entry policy.Entry) policy.Entry {
	if was, there := e.was.Get(entry.Key()); there && was.Same(entry) {
		e.unchanged++
		return was
	}
	return entry
}

// remove takes an entry out, and says whether it was there.
func (e *edit) remove(k policy.Key) bool {
	_, removed := e.set.Remove(k)
	return removed
}

// settle works out what the edit has come to.
func (e *edit) settle() { e.changes = policy.Diff(e.was, e.set) }

// putDoc writes a document with the change; was is what it is now (nil = it is
// not there).
func (e *edit) putDoc(d store.Doc, was []byte) {
	e.docs.PutDocs = append(e.docs.PutDocs, d)
	e.restoreDoc(d, was)
}

// deleteDoc deletes a document with the change.
func (e *edit) deleteDoc(d store.Doc, was []byte) {
	e.docs.DeleteDocs = append(e.docs.DeleteDocs, d)
	e.restoreDoc(d, was)
}

func (e *edit) restoreDoc(d store.Doc, was []byte) {
	if d.Data = was; was == nil {
		e.undoDocs.DeleteDocs = append(e.undoDocs.DeleteDocs, d)
		return
	}
	e.undoDocs.PutDocs = append(e.undoDocs.PutDocs, d)
}

// empty says whether there is nothing to write.
func (e *edit) empty() bool {
	return e.changes.Empty() && len(e.docs.PutDocs)+len(e.docs.DeleteDocs) == 0
}

// batch is what the store has to do.
func (e *edit) batch() store.Batch {
	do := e.docs
	do.Put = e.changes.Added[:len(e.changes.Added):len(e.changes.Added)]
	do.Put = slices.Grow(do.Put, len(e.changes.Changed))
	for _, c := range e.changes.Changed {
		do.Put = append(do.Put, c.New)
	}
	do.Delete = make([]policy.Key, 0, len(e.changes.Removed))
	for _, r := range e.changes.Removed {
		do.Delete = append(do.Delete, r.Key())
	}
	return do
}

// undo is what undoes batch.
func (e *edit) undo() store.Batch {
	undo := e.undoDocs
	for _, a := range e.changes.Added {
		undo.Delete = append(undo.Delete, a.Key())
	}
	for _, c := range e.changes.Changed {
		undo.Put = append(undo.Put, c.Old)
	}
	undo.Put = append(undo.Put, e.changes.Removed...)
	return undo
}
