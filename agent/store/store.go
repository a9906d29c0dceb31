// Package store keeps what the agent must remember over a restart: the
// policy's entries and small documents (accounts and the like), under one
// revision. It owns the format on disk and nothing else: what entries mean is
// package policy's business.
//
// One host keeps it in a bbolt file (OpenBolt). Every implementation passes
// the suite in storetest.
package store

import (
	"context"
	"errors"
	"iter"

	"github.com/synward/synward/agent/policy"
)

// Errors that callers may test for with errors.Is.
var (
	ErrChanged = errors.New("the store changed meanwhile")     // Batch.If is not the revision any more: read again
	ErrLocked  = errors.New("another agent holds the store")   // lock taken
	ErrCorrupt = errors.New("the store is damaged")            // not what this code has written
	ErrSchema  = errors.New("the store is of another version") // written by a newer synward
)

// Schema is the version of the layout that this code reads and writes.
const Schema = 1

// Store is where the agent remembers. Its methods may be called from several
// goroutines.
type Store interface {
	// View calls fn with everything as it was at one revision. fn must not
	// call Commit, nor keep what the Reader gave after it returns.
	View(ctx context.Context, fn func(Reader) error) error
	// Commit makes all changes of a batch durable, or none, and returns the
	// revision after them. A batch that changes nothing leaves the revision.
	Commit(ctx context.Context, b Batch) (revision uint64, err error)
	// Close releases the store. A second Close does nothing.
	Close() error
}

// Reader reads at one revision. The sequences end after their first error.
type Reader interface {
	// Revision grows with every commit that changes something; at least 1.
	Revision() uint64
	// Entries yields every entry of the policy, in no promised order.
	Entries() iter.Seq2[policy.Entry, error]
	// Docs yields the documents of a collection, sorted by name.
	Docs(collection string) iter.Seq2[Doc, error]
	// Doc reads one of them; found is false where there is none.
	Doc(collection, name string) (d Doc, found bool, err error)
}

// Doc is a document that the store does not look into.
type Doc struct {
	Collection string // "accounts", "history"
	Name       string
	Data       []byte
}

// Batch is what one Commit changes. Deletions come first; deleting what is not
// there is no error.
type Batch struct {
	If         uint64 // the revision that the caller read; 0 = whatever it is now
	Delete     []policy.Key
	Put        []policy.Entry
	DeleteDocs []Doc // Data is ignored
	PutDocs    []Doc
}

// Entries reads the whole policy and the revision that it is of.
func Entries(ctx context.Context, s Store) (entries []policy.Entry, revision uint64, err error) {
	err = s.View(ctx, func(r Reader) error {
		revision = r.Revision()
		for e, err := range r.Entries() {
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, revision, err
}

// Docs reads a whole collection and the revision that it is of.
func Docs(ctx context.Context, s Store, collection string) (docs []Doc, revision uint64, err error) {
	err = s.View(ctx, func(r Reader) error {
		revision = r.Revision()
		for d, err := range r.Docs(collection) {
			if err != nil {
				return err
			}
			docs = append(docs, d)
		}
		return nil
	})
	return docs, revision, err
}

// GetDoc reads one document; found is false where there is none.
func GetDoc(ctx context.Context, s Store, collection, name string) (data []byte, found bool, err error) {
	err = s.View(ctx, func(r Reader) error {
		var d Doc
		d, found, err = r.Doc(collection, name)
		data = d.Data
		return err
	})
	return data, found, err
}
