package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent/control"
)

// The TCP states of a socket (tcp_states.h).
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpClosing     = 11
)

// timeWait is the timer of a socket that has no connection any more, in whatever
// state it is shown (inet_diag.h).
const timeWait = 3

// connections lists the connections to the ports that are open on our side, from
// inet_diag.
func connections(ports []uint16) ([]control.Connection, error) {
	return sockets(ports, tcpEstablished, tcpCloseWait)
}

// countable lists the sockets of the ports that the filter counts: from the
// handshake until nothing is left but TIME_WAIT.
func countable(ports []uint16) ([]control.Connection, error) {
	return sockets(ports, tcpEstablished, tcpFinWait1, tcpFinWait2, tcpCloseWait, tcpLastAck, tcpClosing)
}

func sockets(ports []uint16, states ...uint8) ([]control.Connection, error) {
	var out []control.Connection
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := netlink.SocketDiagTCP(family)
		// An interrupted dump lacks some that came or went in the meantime.
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list connections: %w", err)
		}
		for _, s := range socks {
			if !slices.Contains(states, s.State) || s.Timer == timeWait || !slices.Contains(ports, s.ID.SourcePort) {
				continue
			}
			out = append(out, control.Connection{
				Source: addrPort(s.ID.Destination, s.ID.DestinationPort),
				Local:  addrPort(s.ID.Source, s.ID.SourcePort),
				Cookie: s.ID.Cookie,
			})
		}
	}
	return out, nil
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// destroy ends a connection: both ends see a reset. One that has gone by
// itself is no error.
func destroy(c control.Connection) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(diagRequest(c))
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errors.New("the kernel is built without CONFIG_INET_DIAG_DESTROY")
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return nil
	}
	return err
}

// diagRequest is struct inet_diag_req_v2 for one connection. A connection of
// IPv4 on an IPv6 socket is found by its IPv4 addresses too. The cookie is no
// luxury: where the connection has gone, the kernel's look-up comes up with the
// listener. (The netlink package's own SocketDestroy has neither IPv6 nor
// cookies.)
type diagRequest control.Connection

// Len is the size of the structure.
func (r diagRequest) Len() int { return 56 }

// Serialize lays the structure out as inet_diag.h has it.
func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if r.Source.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // whatever state
	binary.BigEndian.PutUint16(b[8:], r.Local.Port())
	binary.BigEndian.PutUint16(b[10:], r.Source.Port())
	copy(b[12:], r.Local.Addr().AsSlice())
	copy(b[28:], r.Source.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[48:], r.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.Cookie[1])
	return b
}
