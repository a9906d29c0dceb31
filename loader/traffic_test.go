package loader_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/test/lab"
)

// Long runs: go test ./loader -run 'Churn|CapIsExact' -count 10 -args -burst 10000 -churn 100000
var (
	burst = flag.Int("burst", 600, "connections that are opened at once")
	churn = flag.Int("churn", 2000, "connections that come and go")
)

// server keeps every connection that it accepts until it is told to close them.
type server struct {
	mu    sync.Mutex
	conns []net.Conn
}

func serve(h *lab.Host, t *testing.T, addr string) *server {
	t.Helper()
	return keep(t, h.ListenRaw(addr))
}

// keep is a server on a listener.
func keep(t *testing.T, l net.Listener) *server {
	s := &server{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(s.closeAll)
	return s
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// open is the number of connections that the filter counts for the source.
func (e *edge) open(t *testing.T, src string) (open, peak uint64) {
	t.Helper()
	sources, err := e.filter.Sources()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		if s.Prefix.IsValid() && s.Prefix.Contains(netip.MustParseAddr(src)) {
			open, peak = open+s.Open, max(peak, s.Peak)
		}
	}
	return open, peak
}

// eventually waits for a count; sockets close a little after their owner says so.
func (e *edge) eventually(t *testing.T, src string, want uint64) {
	t.Helper()
	var open uint64
	for range 100 {
		if open, _ = e.open(t, src); open == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s has %d connections open by the filter's count, want %d (sockets: %d)", src, open, want, e.sockets(t, src))
}

// sockets is how many the kernel's own table has of the source, without those
// that are not yet or no longer a connection.
func (e *edge) sockets(t *testing.T, src string) uint64 {
	t.Helper()
	var n uint64
	behind := e.behind
	if behind == nil {
		behind = e.Host
	}
	behind.Do(func() error {
		_, family := sockaddr(src, 0)
		all, err := netlink.SocketDiagTCP(uint8(family))
		for _, s := range all {
			state, timeWait := s.State, s.Timer == 3
			if s.ID.Destination.String() == src && state != netlink.TCP_LISTEN && state != netlink.TCP_SYN_RECV &&
				state != netlink.TCP_TIME_WAIT && !timeWait {
				n++
			}
		}
		return err
	})
	return n
}

// burst dials n times at once and returns the connections that live; those that
// were made and reset at once do not.
func (e *edge) burst(t *testing.T, src string, n int) (alive []net.Conn) {
	t.Helper()
	halves := [2][]int{} // from two threads, so that two CPUs meet
	var wg sync.WaitGroup
	for i, n := range []int{n / 2, n - n/2} {
		wg.Go(func() {
			if err := e.peer.Try(func() (err error) { halves[i], err = connectMany(src, e.toward(src), n); return err }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(patience)
	fds := settled(append(halves[0], halves[1]...))
	if uint64(len(fds)) > e.sockets(t, src) {
		speak(fds)
		fds = settled(fds)
	}
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "connection")
		c, err := net.FileConn(f) // a descriptor of its own, of which there are few
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		alive = append(alive, c)
	}
	t.Cleanup(func() { closeAll(alive) })
	return alive
}

// connectMany begins n connections from one thread, without waiting.
func connectMany(src, dst string, n int) (fds []int, err error) {
	from, family := sockaddr(src, 0)
	to, _ := sockaddr(dst, 25)
	for range n {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
		if err := unix.Bind(fd, from); err != nil {
			return fds, err
		}
		if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
			return fds, err
		}
	}
	return fds, nil
}

func sockaddr(addr string, port int) (to unix.Sockaddr, family int) {
	a := netip.MustParseAddr(addr)
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: port, Addr: a.As16()}, unix.AF_INET6
}

// speak has each client say something. Where a handshake's last ACK or the RST that
// answers it was lost, and the server sent a cookie, so that it will not ask again,
// the client learns only now that he has no connection.
func speak(fds []int) {
	for _, fd := range fds {
		_, _ = unix.Write(fd, []byte("\r\n"))
	}
}

// settled waits until no more connections end: who got no RST is reset when the
// server asks again.
func settled(fds []int) []int {
	fds = closeDead(fds)
	for calm, tries := 0, 0; calm < 3 && tries < 40; tries++ {
		time.Sleep(500 * time.Millisecond)
		now := closeDead(fds)
		if calm++; len(now) != len(fds) {
			calm = 0
		}
		fds = now
	}
	return fds
}

// closeDead closes the sockets that have no connection and returns the others.
func closeDead(fds []int) (alive []int) {
	for _, fd := range fds {
		_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if _, gone := unix.Getpeername(fd); gone != nil || !errors.Is(err, unix.EAGAIN) { // reset, or ended
			unix.Close(fd)
			continue
		}
		alive = append(alive, fd)
	}
	return alive
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// spoofedPort is the first port that spoofed segments claim to come from: none
// that a real connection has.
const spoofedPort = 10000

// spoof sends segments in the name of 192.0.2.2 that no socket stands behind.
func spoof(n int, dst string, mac net.HardwareAddr, alter func(i int, tcp []byte)) error {
	frame := loader.SYN(netip.MustParseAddr("192.0.2.2"), 25)
	copy(frame, mac)
	copy(frame[30:34], netip.MustParseAddr(dst).AsSlice())
	return sendFrames("eth0", n, func(i int) []byte {
		binary.BigEndian.PutUint16(frame[34:], uint16(spoofedPort+i))
		if alter != nil {
			alter(i, frame[34:])
		}
		checksum(frame)
		return frame
	})
}

// guess makes of a SYN an ACK that claims to finish its handshake.
func guess(i int, tcp []byte) {
	tcp[13] = 0x10
	binary.BigEndian.PutUint32(tcp[4:], 1)
	binary.BigEndian.PutUint32(tcp[8:], uint32(i)<<16|1)
}

// sendFrames sends n frames by an interface, past the host's stack.
func sendFrames(ifname string, n int, frame func(i int) []byte) error {
	ifc, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := range n {
		if i%100 == 99 {
			time.Sleep(time.Millisecond) // a veth holds 256
		}
		if err := unix.Sendto(fd, frame(i), 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index}); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return err
		}
	}
	return nil
}

// checksum fills in the IPv4 header's and TCP's (RFC 1071).
func checksum(frame []byte) {
	ip, tcp := frame[14:34], frame[34:54]
	ip[10], ip[11], tcp[16], tcp[17] = 0, 0, 0, 0
	put := func(at []byte, sum uint32) {
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		at[0], at[1] = byte(^sum>>8), byte(^sum)
	}
	put(ip[10:], words(ip))
	put(tcp[16:], words(ip[12:20])+6+20+words(tcp))
}

func words(b []byte) (sum uint32) {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return sum
}
