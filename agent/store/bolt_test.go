package store_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/agent/store/storetest"
)

func open(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.OpenBolt(filepath.Join(dir, "state", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBolt(t *testing.T) { storetest.Run(t, open) }

// written returns the bytes of a store with some entries in it.
func written(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	for i := range 300 {
		b.Put = append(b.Put, storetest.Entry(i))
	}
	if _, err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "store.db")
	for range 2 { // the second time the file is there, open to others
		s, err := store.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
			}
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecondAgent(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	path := filepath.Join(dir, "state", "store.db")
	_, err := store.OpenBolt(path)
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line of ErrLocked that names the file", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir).Close() // fails the test where the lock has stayed
}

func TestBadFiles(t *testing.T) {
	good := written(t)
	foreign := func(fill func(*bbolt.Tx) error) []byte {
		path := filepath.Join(t.TempDir(), "x")
		db, err := bbolt.Open(path, 0o600, nil)
		if err == nil {
			err = errors.Join(db.Update(fill), db.Close())
		}
		data, err2 := os.ReadFile(path)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return data
	}
	metaOf := func(schema uint64) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			for _, name := range []string{"meta", "entries", "docs"} {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return err
				}
			}
			b := tx.Bucket([]byte("meta"))
			return errors.Join(b.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, schema)),
				b.Put([]byte("revision"), binary.BigEndian.AppendUint64(nil, 1)))
		}
	}
	zeroes := func(data []byte, from int) []byte {
		return append(slices.Clone(data[:from]), make([]byte, len(data)-from)...)
	}
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"text":                {[]byte(strings.Repeat("allow 192.0.2.0/24\n", 1000)), store.ErrCorrupt},
		"short text":          {[]byte("hello"), store.ErrCorrupt},
		"zeroes":              {make([]byte, 1<<16), store.ErrCorrupt},
		"cut to half":         {good[:len(good)/2], store.ErrCorrupt},
		"cut to meta pages":   {good[:8192], store.ErrCorrupt},
		"cut in a meta page":  {good[:1000], store.ErrCorrupt},
		"zeroes behind meta":  {zeroes(good, 8192), store.ErrCorrupt},
		"zeroes behind front": {zeroes(good, 16384), store.ErrCorrupt},
		"somebody else's":     {foreign(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err }), store.ErrCorrupt},
		"newer schema":        {foreign(metaOf(store.Schema + 1)), store.ErrSchema},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := store.OpenBolt(path)
			if err == nil { // damage deeper down shows when it is read
				_, _, err = store.Entries(t.Context(), s)
				s.Close()
			}
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line of %v that names the file", err, test.want)
			}
		})
	}
	if _, err := store.OpenBolt(t.TempDir()); err == nil || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a directory in its place: %v", err)
	}
}

// TestFlippedBits flips bits in stored values, which bbolt itself does not
// check: the store must say so, and never give out what was never put.
func TestFlippedBits(t *testing.T) {
	good := written(t)
	path := filepath.Join(t.TempDir(), "store.db")
	value := []byte("number 77")
	if !bytes.Contains(good, value) {
		t.Fatal("no such value in the file")
	}
	for i := range 2 * len(value) {
		data := slices.Clone(good)
		// the value may stand in more than one page, of which one is in use
		for from := 0; ; {
			n := bytes.Index(good[from:], value)
			if n < 0 {
				break
			}
			data[from+n+i/2] ^= 1 << (i % 2)
			from += n + len(value)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.OpenBolt(path)
		if err == nil {
			_, _, err = store.Entries(t.Context(), s)
			s.Close()
		}
		if !errors.Is(err, store.ErrCorrupt) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("byte %d: error %v, want one line of ErrCorrupt", i/2, err)
		}
	}
}

func TestLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good.policy")
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	if _, err := store.ReadLastGood(path, now); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
	set := policy.NewSet()
	for i, origin := range []policy.Origin{policy.Operator, policy.File, policy.Feed, policy.Learned} {
		e := storetest.Entry(7)
		if e.Origin = origin; origin == policy.Feed {
			e.Feed = "spam"
		}
		if origin == policy.Learned {
			e = policy.Entry{Action: policy.Deny, Origin: origin, Prefix: e.Prefix}
		}
		set.Put(e)
		if err := store.WriteLastGood(path, set); err != nil {
			t.Fatal(err)
		}
		read, err := store.ReadLastGood(path, now)
		if err != nil || read.Len() != i+1 || !policy.Diff(set, read).Empty() {
			t.Errorf("read %v, %v", policy.Diff(set, read), err)
		}
	}
	if names, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("allow 192.0.2.1\nallow"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.ReadLastGood(path, now); err == nil || !strings.Contains(err.Error(), path+":1:") {
		t.Errorf("error %v, want one that names file and line", err)
	}
	if err := store.WriteLastGood(filepath.Join(path, "x"), set); err == nil {
		t.Error("written below a file")
	}
}

// The first versions wrote entries as JSON: what they have left is still read.
func TestEntriesInJSON(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	want := storetest.Entry(5)
	value, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	key := []byte(want.Key().String())
	sum := crc32.Checksum(append(slices.Clone(key), value...), crc32.MakeTable(crc32.Castagnoli))
	db, err := bbolt.Open(filepath.Join(dir, "state", "store.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("entries")).Put(key, append(binary.BigEndian.AppendUint32(nil, sum), value...))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	defer s.Close()
	got, _, err := store.Entries(t.Context(), s)
	if err != nil || len(got) != 1 || !got[0].Same(want) || got[0].By != want.By {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
}
