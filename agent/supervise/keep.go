package supervise

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// keptName is what a listener's socket is kept under.
func keptName(l Listener) string {
	return fmt.Sprintf("listen-%d-%s", l.Port, strings.NewReplacer(":", "_", "%", "_").Replace(l.Address))
}

// kept is a listener's socket of an earlier agent, nil where there is none that
// is bound as it should be.
func kept(k Keeper, l Listener) *os.File {
	if k == nil {
		return nil
	}
	f := k.Kept(keptName(l))
	if f != nil && !boundTo(f, l) {
		f.Close()
		return nil
	}
	return f
}

// boundTo says whether a socket is bound to the listener's address and port.
func boundTo(f *os.File, l Listener) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var at unix.Sockaddr
	cerr := raw.Control(func(fd uintptr) { at, err = unix.Getsockname(int(fd)) })
	if err != nil || cerr != nil {
		return false
	}
	var addr netip.Addr
	var port int
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		addr, port = netip.AddrFrom4(a.Addr), a.Port
	case *unix.SockaddrInet6:
		addr, port = netip.AddrFrom16(a.Addr).Unmap(), a.Port
	default:
		return false
	}
	if l.Address == "" {
		return port == int(l.Port) && addr.IsUnspecified()
	}
	want, err := netip.ParseAddr(l.Address)
	return err == nil && port == int(l.Port) && addr == want.Unmap().WithZone("")
}

// keep gives the listening sockets to the keeper; files begin with the admin
// socket, which is made anew each time.
func keep(k Keeper, files []*os.File, ls []Listener) error {
	if k == nil {
		return nil
	}
	var errs []error
	for i, l := range ls {
		errs = append(errs, k.Keep(keptName(l), files[i+1]))
	}
	return errors.Join(errs...)
}
