// Package fdstore keeps sockets over a restart of the agent, in systemd's store
// of file descriptors (sd_notify(3), FDSTORE=1, systemd 219; FileDescriptorStoreMax=
// in the unit). A connection that comes while no agent runs waits in the
// backlog of such a socket instead of being refused. Where nobody has such a
// store nothing is kept, and all else works the same.
package fdstore

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is the first descriptor that systemd hands over (sd_listen_fds(3)).
const firstFD = 3

// Store is the service manager's store. It is not for several goroutines.
type Store struct {
	socket string // of the service manager; empty = none
	kept   map[string]*os.File
}

// Open takes over what the service manager hands to this process. It is to be
// called once, before anything else opens or starts something.
func Open() *Store {
	s := &Store{socket: os.Getenv("NOTIFY_SOCKET"), kept: map[string]*os.File{}}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return s
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		unix.CloseOnExec(firstFD + i)
		name := "unknown"
		if i < len(names) {
			name = names[i]
		}
		if s.kept[name] != nil {
			s.kept[name].Close() // the later one is the newer
		}
		s.kept[name] = os.NewFile(uintptr(firstFD+i), name)
	}
	return s
}

// Kept returns what was kept under a name, nil where nothing was. It is the
// caller's from then on; the store has it too.
func (s *Store) Kept(name string) *os.File {
	f := s.kept[name]
	delete(s.kept, name)
	return f
}

// Keep puts a file into the store, under a name of letters, digits, dots,
// hyphens and underscores.
func (s *Store) Keep(name string, f *os.File) error {
	if s.socket == "" {
		return nil
	}
	// Without FDPOLL=0 systemd would throw out what has an error pending.
	return s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, f)
}

// Forget gives up what was kept and nobody has asked for: the sockets of ports
// that the configuration no longer names.
func (s *Store) Forget() error {
	var errs []error
	for name, f := range s.kept {
		errs = append(errs, f.Close(), s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil))
	}
	clear(s.kept)
	return errors.Join(errs...)
}

func (s *Store) send(state string, f *os.File) error {
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer unix.Close(c)
	var rights []byte
	if f != nil {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		// Not Fd(): that would make the socket blocking for everybody.
		if err := raw.Control(func(fd uintptr) { rights = unix.UnixRights(int(fd)) }); err != nil {
			return err
		}
	}
	if err := unix.Sendmsg(c, []byte(state), rights, &unix.SockaddrUnix{Name: s.socket}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("give a socket to the service manager: %w", err)
	}
	return nil
}
