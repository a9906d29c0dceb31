// Package unixsock makes the agent's unix sockets: with their final mode and
// group before anybody can reach them, and never in the place of one that
// somebody still listens on.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrInUse is returned by Listen where another process listens on the path.
var ErrInUse = errors.New("another process listens there")

// Listen binds a unix stream socket at path with a mode and a group (-1 = the
// process's own). The directory is made (0755) where it is missing. A stale
// socket is replaced; one that answers is ErrInUse.
func Listen(path string, mode fs.FileMode, gid int) (*net.UnixListener, error) {
	if Alive(path) {
		return nil, fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	if err := checkStale(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	// Bound inside a private directory and renamed, the socket is never
	// reachable with the mode that the umask gives it.
	tmp, err := os.MkdirTemp(dir, ".sock-")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(tmp)
	inner := filepath.Join(tmp, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: inner, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := place(inner, path, mode, gid); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func place(from, to string, mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Chown(from, -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(from, mode); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// checkStale makes sure that what lies at path is a socket, if anything does:
// a mistyped path must not cost somebody a file.
func checkStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen on %s: it is a file, not a socket; remove it or set another path", path)
	}
	return nil
}

// Alive says whether somebody listens at path. A socket that may not be
// connected to for want of rights counts as alive.
func Alive(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTSOCK)
}
