package queue

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIDs(t *testing.T) {
	last := uint64(0)
	for range 1000 {
		id := newID(time.Unix(1_800_000_000, 0), last) // a clock that stands still
		if id <= last {
			t.Fatalf("%d after %d", id, last)
		}
		last = id
		s := formatID(id)
		if back, err := parseID(s); err != nil || back != id {
			t.Fatalf("%s: %d, %v, want %d", s, back, err, id)
		}
	}
	if formatID(newID(time.Unix(1, 0), 0)) >= formatID(newID(time.Unix(2, 0), 0)) {
		t.Error("ids do not sort by time")
	}
}

func TestDamagedItemIsSetAside(t *testing.T) {
	for name, size := range map[string]int{"in the log": 100, "in a pack": 2000} {
		t.Run(name, func(t *testing.T) {
			q := open(t, t.TempDir(), Options{CacheBytes: -1, InlineMax: 1000})
			mark := strings.Repeat("damage me ", size/10)
			bad, good := add(t, q, mark), add(t, q, "fine")
			damage(t, q.dir, "damage me")
			if r, err := q.Body(bad); err == nil {
				_, err = io.ReadAll(r)
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("got %v", err)
				}
			} else if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
			if _, err := q.Get(bad); !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v", err)
			}
			kept, err := os.ReadFile(filepath.Join(q.dir, "corrupt", bad+".raw"))
			if err != nil || !bytes.Contains(kept, []byte("damage me")) {
				t.Errorf("kept %d octets, %v", len(kept), err)
			}
			if got := body(t, q, good); got != "fine" {
				t.Errorf("got %q", got)
			}
			if n := q.Stats().Damaged; n != 1 {
				t.Errorf("%d are said to be damaged", n)
			}
			q = reopen(t, q, Options{})
			if l := q.List(); len(l) != 1 || l[0].ID != good {
				t.Errorf("got %+v", l)
			}
			if n := q.Stats().Damaged; n != 1 {
				t.Errorf("%d are said to be damaged after a restart", n)
			}
		})
	}
}

// damage flips a bit of the first place where the text stands in the spool's files.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	done := false
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if done || strings.HasSuffix(path, tempExt) { // the tender may be renaming it
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(text)); i >= 0 {
			done = true
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{b[i] ^ 4}, int64(i))
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil || !done {
		t.Fatal("nothing to damage", err)
	}
}
