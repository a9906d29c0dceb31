package agent

import (
	"context"
	"fmt"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// Task is a source of entries beside the operator: names, feeds, what sources
// did here. Run goes on until the context ends (nil) and changes the policy by
// the Agent's Change alone.
type Task interface {
	Run(ctx context.Context, a *Agent) error
}

// A task may also answer requests of its own on the control socket, and add to
// status.
type (
	router interface {
		Routes(a *Agent) []control.Route
	}
	reporter interface{ Report(st *control.Status) }
)

// FeedDocs is the store's collection of feeds, which the task that fetches them
// owns. The agent knows of it to keep it beside the store.
const FeedDocs = "feeds"

// Update is what a task changes, all or nothing: entries, and the documents in
// which it keeps its own state. Entries that are as wished already cost nothing.
type Update struct {
	By, Command, Why string  // for history; By such as "feed:spam"
	UID              *uint32 // of the operator who asked; nil = nobody did
	DryRun           bool
	Kill             bool // end connections that no longer pass
	// Plan, where there is one, is called with the policy just before it is
	// changed, and adds what then is to be changed. Its error is Change's.
	Plan       func(now *policy.Set, u *Update) error
	Remove     []policy.Key // those that are not there are left out
	Put        []policy.Entry
	PutDocs    []store.Doc
	DeleteDocs []store.Doc
	// Born are the names and feeds that were not in force before: an undo takes
	// all that they then stand for. Feed, or Name and Action, alone are set.
	Born []policy.Key
}

// Change brings an update into store and kernel, by the one way that every
// change takes; it returns once that is in force. By and At of the entries are
// filled in.
func (a *Agent) Change(ctx context.Context, u Update) (control.Changed, error) {
	in := intent{by: u.By, uid: u.UID, command: u.Command, why: u.Why, dryRun: u.DryRun, kill: u.Kill}
	return a.change(ctx, in, func(e *edit, p plan) error {
		if u.Plan != nil {
			if err := u.Plan(e.set, &u); err != nil {
				return err
			}
		}
		return a.take(ctx, e, u)
	})
}

// take brings an update into an edit.
func (a *Agent) take(ctx context.Context, e *edit, u Update) error {
	e.born = append(e.born, u.Born...)
	for _, k := range u.Remove {
		e.remove(k)
	}
	now := a.now()
	for _, wish := range u.Put {
		wish.By, wish.At = u.By, now
		entry, _, err := policy.New(wish, nil)
		if err != nil {
			return fmt.Errorf("%s %s: %w; nothing changed", wish.Action, wish.Prefix, err)
		}
		e.put(entry)
	}
	for _, d := range u.DeleteDocs {
		if err := a.withDoc(ctx, d, e.deleteDoc); err != nil {
			return err
		}
	}
	for _, d := range u.PutDocs {
		if err := a.withDoc(ctx, d, e.putDoc); err != nil {
			return err
		}
	}
	return nil
}

// withDoc hands a document on together with what the store has of it now.
func (a *Agent) withDoc(ctx context.Context, d store.Doc, fn func(d store.Doc, was []byte)) error {
	was, found, err := store.GetDoc(ctx, a.store, d.Collection, d.Name)
	if err != nil {
		return err
	}
	if found && was == nil {
		was = []byte{}
	}
	fn(d, was)
	return nil
}

// Policy is the policy as it is now, not to be written to.
func (a *Agent) Policy() *policy.Set {
	set, _ := a.state()
	return set
}

// Ports are the protected ports.
func (a *Agent) Ports() []uint16 {
	_, p := a.state()
	return p.numbers()
}

// Docs reads a collection of the store.
func (a *Agent) Docs(ctx context.Context, collection string) ([]store.Doc, error) {
	docs, _, err := store.Docs(ctx, a.store, collection)
	return docs, err
}

// Problem says in status what is wrong with a part of a task's; nil: nothing is.
func (a *Agent) Problem(part string, err error) { a.problem(part, err) }
