package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/synward/synward/agent/policy"
)

// WriteLastGood writes a policy as text, with the origins of its entries, for
// the day when the store is lost. The file is replaced as a whole (mode 0600)
// and is on disk when this returns.
func WriteLastGood(path string, s *policy.Set) error {
	err := writeFile(path, func(w io.Writer) error {
		return policy.Format(w, s.All(), policy.FormatOptions{Origins: true, Sorted: true})
	})
	if err != nil {
		return fmt.Errorf("write last good policy %s: %w", path, withoutPath(err))
	}
	return nil
}

// ReadLastGood reads what WriteLastGood has written. An error of the kind
// fs.ErrNotExist means that there never was one.
func ReadLastGood(path string, now time.Time) (*policy.Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read last good policy %s: %w", path, withoutPath(err))
	}
	defer f.Close()
	entries, _, err := policy.Parse(f, policy.ParseOptions{Name: path, Now: now, Origins: true})
	if err != nil {
		return nil, fmt.Errorf("read last good policy: %w", err)
	}
	return policy.NewSet(entries...), nil
}

// WriteFile replaces a file, mode 0600: a crash at any moment leaves the old or
// the new. It is on disk when this returns.
func WriteFile(path string, data []byte) error {
	err := writeFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	return nil
}

func writeFile(path string, fill func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = fill(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
