package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is what the queue asks of the operating system where an answer may be
// an error that matters; tests put failures in its place.
type disk interface {
	create(path string, size int64) (*os.File, error) // new file of zeroes, synced
	write(f *os.File, b []byte, off int64) error
	sync(f *os.File) error // data only
}

type osDisk struct{}

// create writes the zeroes rather than reserve the space: blocks that were only
// reserved are marked "unwritten", and each first write to one would put a
// journal commit into the fdatasync.
func (osDisk) create(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	zero := make([]byte, min(size, 1<<20))
	for done := int64(0); done < size && err == nil; {
		var n int
		n, err = f.WriteAt(zero[:min(int64(len(zero)), size-done)], done)
		done += int64(n)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

func (osDisk) write(f *os.File, b []byte, off int64) error {
	_, err := f.WriteAt(b, off)
	return err
}

func (osDisk) sync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isFull tells a full disk or quota from other errors.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// lockDir takes the directory for this process, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("open queue %s: %w; stop it first", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock queue %s: %w", dir, err)
	}
	return f, nil
}
