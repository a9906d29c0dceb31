package supervise

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent/unixsock"
)

// Listener is one TCP listener that the child gets.
type Listener struct {
	Name    string // what the child calls it, e.g. "587/starttls"
	Address string // an IP address; empty = every one, IPv4 and IPv6
	Port    uint16
}

// backlog of accepted connections; the kernel cuts it to net.core.somaxconn.
const backlog = 4096

// bind opens the admin socket and binds the listeners' ports, in the order in
// which the child gets them. The ports do not listen yet, save those that were
// kept from an earlier agent.
func bind(o Options) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	admin, err := unixsock.Listen(o.Socket, 0o600, -1)
	if err != nil {
		return nil, err
	}
	f, err := admin.File()
	admin.Close()
	if err != nil {
		return nil, fmt.Errorf("keep admin socket: %w", err)
	}
	files = append(files, f)
	for _, l := range o.Listeners {
		f := kept(o.Keeper, l)
		if f == nil {
			if f, err = bindTCP(l); err != nil {
				return files, explainBind(l, err)
			}
		}
		files = append(files, f)
	}
	if o.Keeper != nil {
		err = o.Keeper.Forget()
	}
	return files, err
}

// bindTCP binds one port: of every address IPv4 and IPv6 alike where the host
// has IPv6. The socket is plain TCP: a multipath one, Go's default, has request
// sockets of another kind, which the filter's proof of a handshake cannot read.
func bindTCP(l Listener) (*os.File, error) {
	family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(l.Port)})
	if l.Address != "" {
		ip, err := netip.ParseAddr(l.Address)
		if err != nil {
			return nil, err
		}
		if ip.Unmap().Is4() {
			family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(l.Port), Addr: ip.Unmap().As4()}
		} else {
			addr = &unix.SockaddrInet6{Port: int(l.Port), Addr: ip.As16()}
		}
	}
	fd, err := tcpSocket(family)
	if errors.Is(err, unix.EAFNOSUPPORT) && l.Address == "" {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(l.Port)}
		fd, err = tcpSocket(family)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), l.Name), nil
}

func tcpSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// listen opens the bound ports for connections. Again on an open port it does
// nothing.
func listen(files []*os.File, ls []Listener) error {
	for i, l := range ls {
		raw, err := files[i+1].SyscallConn()
		if err != nil {
			return err
		}
		var lerr error
		if err := raw.Control(func(fd uintptr) { lerr = unix.Listen(int(fd), backlog) }); err != nil {
			return err
		}
		if lerr != nil {
			return explainBind(l, lerr)
		}
	}
	return nil
}

func explainBind(l Listener, err error) error {
	addr := net.JoinHostPort(l.Address, strconv.Itoa(int(l.Port)))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("listen on %s: another program has the port; stop it (ss -ltnp 'sport = :%d' names it) or take the port out of relay.listen", addr, l.Port)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this host does not have the address; mend relay.listen", addr)
	}
	return fmt.Errorf("listen on %s: %w", addr, without(err, "CAP_NET_BIND_SERVICE"))
}

// without adds to a refusal what would have been allowed with these capabilities.
func without(err error, capabilities string) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; run the agent as root, with %s", err, capabilities)
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
