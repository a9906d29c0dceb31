package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// lockWait is how long OpenBolt waits for the lock: long enough for an agent
// that is just closing, short enough for a person.
const lockWait = 500 * time.Millisecond

// The layout: bucket meta holds schema and revision as 8 bytes, big endian;
// entries holds policy.Key.String() → the entry in binary; docs holds a bucket
// per collection, name → data. Values in these two are sealed.
const (
	bucketMeta    = "meta"
	bucketEntries = "entries"
	bucketDocs    = "docs"
	keySchema     = "schema"
	keyRevision   = "revision"
)

// Bolt is a Store in one file of one host.
type Bolt struct {
	db   *bbolt.DB
	path string
}

// OpenBolt opens the store in a file, or makes an empty one; a missing
// directory is made with mode 0700, the file always has 0600. One process has
// it at a time. Errors: ErrLocked, ErrCorrupt, ErrSchema, or the system's.
func OpenBolt(path string) (*Bolt, error) {
	b, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return b, nil
}

func openBolt(path string) (*Bolt, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, withoutPath(err)
	}
	var file *os.File // closed here where bbolt panics over a damaged file
	opened := false
	defer func() {
		if !opened && file != nil {
			unix.Flock(int(file.Fd()), unix.LOCK_UN) // the mapping that stays behind would hold it
			file.Close()
		}
	}()
	options := &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			file = f
			return f, err
		}}
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if err != nil {
		return nil, openError(err)
	}
	opened = true
	b := &Bolt{db: db, path: path}
	if err := b.prepare(); err != nil {
		db.Close()
		return nil, err
	}
	return b, nil
}

// openError says in our words why bbolt could not open a file.
func openError(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w; stop that one first (synward status tells which runs)", ErrLocked)
	case errors.Is(err, ErrCorrupt):
		return err
	}
	for _, bad := range []error{berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch, berrors.ErrInvalidMapping} {
		if errors.Is(err, bad) {
			return corrupt(err)
		}
	}
	if errors.As(err, new(*fs.PathError)) {
		return withoutPath(err)
	}
	// What else bbolt says comes from meta pages that it cannot make sense of.
	return corrupt(err)
}

func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// prepare checks that the file is whole and of this schema, and lays out a new one.
func (b *Bolt) prepare() error {
	if err := os.Chmod(b.path, 0o600); err != nil {
		return withoutPath(err)
	}
	info, err := os.Stat(b.path)
	if err != nil {
		return withoutPath(err)
	}
	return guard(func() error {
		fresh := false
		err := b.db.View(func(tx *bbolt.Tx) error {
			if tx.Size() > info.Size() {
				return corrupt(fmt.Errorf("%d bytes long, should be %d", info.Size(), tx.Size()))
			}
			if name, _ := tx.Cursor().First(); name == nil {
				fresh = true
				return nil
			}
			if err := checkPages(tx); err != nil {
				return err
			}
			return checkLayout(tx)
		})
		if err != nil || !fresh {
			return err
		}
		return b.db.Update(layOut)
	})
}

// checkPages looks for pages that claim more room than the file has: bbolt
// would go on for hours over them.
func checkPages(tx *bbolt.Tx) error {
	end := int(tx.Size() / int64(tx.DB().Info().PageSize))
	for id := 0; id < end; id++ {
		page, err := tx.Page(id)
		if err != nil {
			return err
		}
		if page == nil || page.Type == "free" {
			continue // what stands there is left over
		}
		if id += page.OverflowCount; id >= end {
			return corrupt(fmt.Errorf("page %d reaches beyond the end", page.ID))
		}
	}
	return nil
}

func checkLayout(tx *bbolt.Tx) error {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil || tx.Bucket([]byte(bucketEntries)) == nil || tx.Bucket([]byte(bucketDocs)) == nil {
		return corrupt(errors.New("a bbolt file, but not synward's"))
	}
	schema := meta.Get([]byte(keySchema))
	if len(schema) != 8 || len(meta.Get([]byte(keyRevision))) != 8 {
		return corrupt(errors.New("no schema version or revision in it"))
	}
	if v := binary.BigEndian.Uint64(schema); v != Schema {
		return fmt.Errorf("%w: it has schema %d, this synward knows %d; run the synward that wrote it", ErrSchema, v, Schema)
	}
	return nil
}

func layOut(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketEntries, bucketDocs} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if err := meta.Put([]byte(keySchema), binary.BigEndian.AppendUint64(nil, Schema)); err != nil {
		return err
	}
	return meta.Put([]byte(keyRevision), binary.BigEndian.AppendUint64(nil, 1))
}

// Close releases the file and its lock.
func (b *Bolt) Close() error {
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close store %s: %w", b.path, err)
	}
	return nil
}
