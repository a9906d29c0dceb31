package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"github.com/synward/synward/agent/policy"
)

// View calls fn with the store at one revision; fn's error comes back as it is.
func (b *Bolt) View(ctx context.Context, fn func(Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var fnErr error
	err := b.db.View(func(tx *bbolt.Tx) error {
		r := boltReader{ctx: ctx, tx: tx, path: b.path}
		if err := guard(func() error { r.revision = revision(tx); return nil }); err != nil {
			return err
		}
		fnErr = fn(r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read store %s: %w", b.path, err)
	}
	return fnErr
}

func revision(tx *bbolt.Tx) uint64 {
	return binary.BigEndian.Uint64(tx.Bucket([]byte(bucketMeta)).Get([]byte(keyRevision)))
}

// boltReader reads inside one transaction.
type boltReader struct {
	ctx      context.Context
	tx       *bbolt.Tx
	path     string
	revision uint64
}

// Revision is the revision that the transaction sees.
func (r boltReader) Revision() uint64 { return r.revision }

// Entries yields the entries in the order of their keys.
func (r boltReader) Entries() iter.Seq2[policy.Entry, error] {
	return func(yield func(policy.Entry, error) bool) {
		for p, err := range r.scan(func() *bbolt.Bucket { return r.tx.Bucket([]byte(bucketEntries)) }) {
			var e policy.Entry
			if err == nil {
				e, err = decodeEntry(p)
			}
			if err != nil {
				yield(policy.Entry{}, fmt.Errorf("read store %s: %w", r.path, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// decodeEntry refuses an entry that Commit cannot have put there. The first
// versions wrote JSON.
func decodeEntry(p pair) (e policy.Entry, err error) {
	if policy.IsBinary(p.value) {
		var rest []byte
		if e, rest, err = policy.DecodeBinary(p.value); err == nil && len(rest) > 0 {
			err = errors.New("something stands behind it")
		}
	} else {
		err = json.Unmarshal(p.value, &e)
	}
	if err == nil {
		err = e.Validate(nil)
	}
	if err == nil && e.Key().String() != string(p.key) {
		err = errors.New("stored under another key")
	}
	if err != nil {
		return policy.Entry{}, corrupt(fmt.Errorf("entry %q: %w", p.key, err))
	}
	return e, nil
}

// Docs yields the documents of a collection in the order of their names.
func (r boltReader) Docs(collection string) iter.Seq2[Doc, error] {
	return func(yield func(Doc, error) bool) {
		bucket := func() *bbolt.Bucket { return r.tx.Bucket([]byte(bucketDocs)).Bucket([]byte(collection)) }
		for p, err := range r.scan(bucket) {
			if err != nil {
				yield(Doc{}, fmt.Errorf("read store %s: %w", r.path, err))
				return
			}
			if !yield(Doc{Collection: collection, Name: string(p.key), Data: p.value}, nil) {
				return
			}
		}
	}
}

// Doc reads one document, checked.
func (r boltReader) Doc(collection, name string) (d Doc, found bool, err error) {
	err = guard(func() (err error) {
		bucket := r.tx.Bucket([]byte(bucketDocs)).Bucket([]byte(collection))
		if bucket == nil {
			return nil
		}
		v := bucket.Get([]byte(name))
		if found = v != nil; found {
			d = Doc{Collection: collection, Name: name}
			d.Data, err = unseal([]byte(name), bytes.Clone(v))
		}
		return err
	})
	if err != nil {
		return Doc{}, false, fmt.Errorf("read store %s: %w", r.path, err)
	}
	return d, found, nil
}

type pair struct{ key, value []byte }

// scan yields copies of what a bucket holds, checked; a nil bucket holds nothing. Only
// the steps in the file are guarded, so that a panic of the caller stays one.
func (r boltReader) scan(open func() *bbolt.Bucket) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		var cursor *bbolt.Cursor
		step := func() (p pair, err error) {
			if err := r.ctx.Err(); err != nil {
				return pair{}, err
			}
			err = guard(func() error {
				var k, v []byte
				if cursor != nil {
					k, v = cursor.Next()
				} else if bucket := open(); bucket != nil {
					cursor = bucket.Cursor()
					k, v = cursor.First()
				}
				if k == nil {
					return nil
				}
				p.key = bytes.Clone(k)
				p.value, err = unseal(k, bytes.Clone(v))
				return err
			})
			return p, err
		}
		for {
			p, err := step()
			if err == nil && p.key == nil || !yield(p, err) || err != nil {
				return
			}
		}
	}
}
