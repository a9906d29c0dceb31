package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Caller is the process at the other end of a control connection, as the
// kernel knows it.
type Caller struct {
	UID uint32
	GID uint32
	PID int32
}

// String is how the caller is written into entries and logs: "root" or a
// user's name, "uid N" where it has none.
func (c Caller) String() string {
	if u, err := user.LookupId(strconv.Itoa(int(c.UID))); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", c.UID)
}

type callerKey struct{}

// CallerOf is the caller of a request that the server has let in.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// peerOf asks the kernel who has connected.
func peerOf(c net.Conn) (Caller, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, errors.New("not a unix connection")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var serr error
	err = raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, serr); err != nil {
		return Caller{}, err
	}
	return Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// guard decides who may use the socket.
type guard struct {
	gid   int // of the group that may; -1 = root alone
	relay func() (uid uint32, ok bool)
}

// admits says whether the caller may use the socket: root and members of the
// group, by their primary or a supplementary one. The relay's user never may,
// whatever groups it was put into: it reports outcomes by a stream of its own
// that the agent fetches.
func (g guard) admits(c Caller) bool {
	if c.UID == 0 {
		return true
	}
	if g.relay != nil {
		if uid, ok := g.relay(); ok && uid == c.UID {
			return false
		}
	}
	if g.gid < 0 {
		return false
	}
	if int(c.GID) == g.gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(c.UID)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(g.gid))
}
