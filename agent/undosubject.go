package agent

import (
	"context"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// done is what a change did, as history keeps it.
type done struct {
	policy.Changes
	Born []policy.Key `json:"born,omitempty"` // names and feeds that came with it
	Docs []docChange  `json:"docs,omitempty"` // of tasks
}

// docChange is a task's document before and after; nil = it was not there.
type docChange struct {
	Collection string `json:"collection"`
	Name       string `json:"name"`
	Was        []byte `json:"was,omitempty"`
	Now        []byte `json:"now,omitempty"`
}

// subjectOf is the identity of the name or feed that an entry comes of; zero
// where it comes of none.
func subjectOf(e policy.Entry) policy.Key {
	switch {
	case e.Feed != "":
		return policy.Key{Feed: e.Feed} // a feed has one action
	case e.Name != "":
		return policy.Key{Name: e.Name, Action: e.Action}
	}
	return policy.Key{}
}

// part is what a change did to one name or feed, or to all entries that come
// of none.
type part struct {
	policy.Changes
	born bool
	have []policy.Entry // that are in force now, of a name or feed
}

// parts takes a change apart. What is of names and feeds is taken back as a
// whole: since then they may have been asked for again, and be of other
// prefixes.
func (d done) parts(now *policy.Set) (plain part, of map[policy.Key]*part) {
	of = map[policy.Key]*part{}
	at := func(e policy.Entry) *part {
		k := subjectOf(e)
		if k == (policy.Key{}) {
			return &plain
		}
		if of[k] == nil {
			of[k] = &part{}
		}
		return of[k]
	}
	for _, e := range d.Added {
		p := at(e)
		p.Added = append(p.Added, e)
	}
	for _, c := range d.Changed {
		p := at(c.New)
		p.Changed = append(p.Changed, c)
	}
	for _, e := range d.Removed {
		p := at(e)
		p.Removed = append(p.Removed, e)
	}
	for _, k := range d.Born {
		if p := of[k]; p != nil {
			p.born = true
		}
	}
	if len(of) > 0 {
		for e := range now.All() {
			if p := of[subjectOf(e)]; p != nil && subjectOf(e) != (policy.Key{}) {
				p.have = append(p.have, e)
			}
		}
	}
	return plain, of
}

// takeBack edits a name or feed so that the change is as if it had not been.
// It says whether something that was changed since stands in its way.
func (p *part) takeBack(e *edit, k policy.Key) bool {
	was, is := p.meanings()
	switch {
	case p.born:
		for _, have := range p.have {
			e.remove(have.Key())
		}
	case is == nil: // the change has ended it
		if len(p.have) > 0 {
			return false
		}
		e.born = append(e.born, k)
		for _, gone := range p.Removed {
			e.put(gone)
		}
	case was != nil && !meansLike(*was, *is):
		for _, have := range p.have {
			if !meansLike(have, *is) {
				return false
			}
		}
		for _, have := range p.have {
			e.remove(have.Key())
			e.put(withPrefixOf(*was, have))
		}
	default: // it was asked for again: the same means other prefixes
		for _, added := range p.Added {
			e.remove(added.Key())
		}
		for _, gone := range p.Removed {
			e.put(gone)
		}
	}
	return true
}

// meanings are an entry of before and one of after; nil = there was none.
func (p *part) meanings() (was, is *policy.Entry) {
	if len(p.Removed) > 0 {
		was = &p.Removed[0]
	}
	if len(p.Added) > 0 {
		is = &p.Added[0]
	}
	if len(p.Changed) > 0 {
		was, is = &p.Changed[0].Old, &p.Changed[0].New
	}
	return was, is
}

// withPrefixOf is an entry for another one's prefix.
func withPrefixOf(e, of policy.Entry) policy.Entry {
	e.Prefix = of.Prefix
	return e
}

// meansLike says whether two entries differ in their prefixes at most.
func meansLike(a, b policy.Entry) bool { return withPrefixOf(a, b).Same(b) }

// takeDocsBack restores the documents of before a change.
func (a *Agent) takeDocsBack(ctx context.Context, e *edit, d done) error {
	for _, c := range d.Docs {
		doc, change := store.Doc{Collection: c.Collection, Name: c.Name, Data: c.Was}, e.putDoc
		if c.Was == nil {
			change = e.deleteDoc
		}
		if err := a.withDoc(ctx, doc, change); err != nil {
			return err
		}
	}
	return nil
}

// docChanges are the tasks' documents that an edit changes.
func (e *edit) docChanges() (out []docChange) {
	was := map[[2]string][]byte{}
	for _, d := range e.undoDocs.PutDocs {
		was[[2]string{d.Collection, d.Name}] = d.Data
	}
	add := func(d store.Doc, now []byte) {
		if d.Collection != pendingDoc.Collection {
			out = append(out, docChange{Collection: d.Collection, Name: d.Name, Was: was[[2]string{d.Collection, d.Name}], Now: now})
		}
	}
	for _, d := range e.docs.PutDocs {
		add(d, d.Data)
	}
	for _, d := range e.docs.DeleteDocs {
		add(d, nil)
	}
	return out
}

// takeBack edits a set so that a change is as if it had not been; what has
// been changed since is a conflict.
func takeBack(e *edit, d done, now time.Time) error {
	plain, of := d.parts(e.set)
	if err := takePlainBack(e, plain.Changes, now); err != nil {
		return err
	}
	for k, p := range of {
		if !p.takeBack(e, k) {
			return changedSince(k.Feed + k.Name) // never both
		}
	}
	return nil
}

// force is takeBack that leaves out what stands in its way.
func force(e *edit, d done) {
	plain, of := d.parts(e.set)
	forcePlain(e, plain.Changes)
	for k, p := range of {
		p.takeBack(e, k)
	}
}
