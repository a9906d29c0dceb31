package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/synward/synward/agent/policy"
)

// errNothing ends a transaction that has changed nothing.
var errNothing = errors.New("nothing changed")

// Commit makes a batch durable: it returns after an fsync. Errors: ErrChanged
// where Batch.If is not the revision any more, an entry that does not
// validate, or the disk's; nothing is changed then.
func (b *Bolt) Commit(ctx context.Context, batch Batch) (at uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	err = guard(func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			at = revision(tx)
			if batch.If != 0 && batch.If != at {
				return fmt.Errorf("%w: at revision %d, not %d", ErrChanged, at, batch.If)
			}
			changed, err := apply(tx, batch)
			if err != nil {
				return err
			}
			if !changed {
				return errNothing // rolls back, which spares the disk a sync
			}
			at++
			return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyRevision), binary.BigEndian.AppendUint64(nil, at))
		})
	})
	if err != nil && !errors.Is(err, errNothing) {
		return 0, fmt.Errorf("write store %s: %w", b.path, err)
	}
	return at, nil
}

func apply(tx *bbolt.Tx, batch Batch) (changed bool, err error) {
	w := writer{}
	entries := tx.Bucket([]byte(bucketEntries))
	for _, k := range batch.Delete {
		w.delete(entries, []byte(k.String()))
	}
	for _, p := range inOrder(batch.Put) {
		w.putEntry(entries, p.key, p.entry)
	}
	docs := tx.Bucket([]byte(bucketDocs))
	for _, d := range batch.DeleteDocs {
		if c := docs.Bucket([]byte(d.Collection)); c != nil {
			w.delete(c, []byte(d.Name))
		}
	}
	for _, d := range batch.PutDocs {
		w.putDoc(docs, d)
	}
	return w.changed, w.err
}

// keyed is an entry with its key in the file.
type keyed struct {
	key   string
	entry *policy.Entry
}

// inOrder sorts entries by their keys: bbolt keeps a transaction's new keys in
// one leaf until it commits, and appends to it in no time, but a million in
// another order take it minutes.
func inOrder(entries []policy.Entry) []keyed {
	sorted := make([]keyed, len(entries))
	for i := range entries {
		sorted[i] = keyed{entries[i].Key().String(), &entries[i]}
	}
	slices.SortStableFunc(sorted, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	return sorted
}

// writer remembers the first error, and whether anything has changed.
type writer struct {
	changed bool
	err     error
}

func (w *writer) delete(bucket *bbolt.Bucket, key []byte) {
	if w.err != nil || bucket.Get(key) == nil {
		return
	}
	w.changed, w.err = true, bucket.Delete(key)
}

func (w *writer) put(bucket *bbolt.Bucket, key, value []byte) {
	if w.err != nil {
		return
	}
	value = seal(key, value)
	if bytes.Equal(bucket.Get(key), value) {
		return
	}
	w.changed, w.err = true, bucket.Put(key, value)
}

func (w *writer) putEntry(bucket *bbolt.Bucket, key string, e *policy.Entry) {
	if w.err != nil {
		return
	}
	err := e.Validate(nil)
	var value []byte
	if err == nil {
		value, err = e.AppendBinary(nil)
	}
	if err != nil {
		w.err = fmt.Errorf("entry %s: %w", key, err)
		return
	}
	w.put(bucket, []byte(key), value)
}

func (w *writer) putDoc(docs *bbolt.Bucket, d Doc) {
	if w.err != nil {
		return
	}
	if d.Collection == "" || d.Name == "" {
		w.err = fmt.Errorf("document %q in collection %q: both need a name", d.Name, d.Collection)
		return
	}
	c, err := docs.CreateBucketIfNotExists([]byte(d.Collection))
	if err != nil {
		w.err = fmt.Errorf("make collection %q: %w", d.Collection, err)
		return
	}
	w.put(c, []byte(d.Name), d.Data)
}
