package loader_test

import (
	"errors"
	"flag"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
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
	s := &server{}
	l := h.ListenRaw(addr)
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
	e.Do(func() error {
		all, err := netlink.SocketDiagTCP(unix.AF_INET)
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
			if err := e.peer.Try(func() (err error) { halves[i], err = connectMany(src, n); return err }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(patience)
	for _, fd := range append(halves[0], halves[1]...) {
		if c := living(fd); c != nil {
			alive = append(alive, c)
		}
	}
	t.Cleanup(func() { closeAll(alive) })
	return alive
}

// connectMany begins n connections to the edge from one thread, without waiting.
func connectMany(src string, n int) (fds []int, err error) {
	from := unix.SockaddrInet4{Addr: netip.MustParseAddr(src).As4()}
	to := unix.SockaddrInet4{Port: 25, Addr: [4]byte{192, 0, 2, 1}}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
		if err := unix.Bind(fd, &from); err != nil {
			return fds, err
		}
		if err := unix.Connect(fd, &to); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
			return fds, err
		}
	}
	return fds, nil
}

// living is the connection of a socket that has one; any other is closed.
func living(fd int) net.Conn {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close() // FileConn has a descriptor of its own
	if _, err := unix.Getpeername(fd); err != nil {
		return nil
	}
	if _, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		return nil // reset, or ended
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return c
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

func setCookies(t *testing.T, h *lab.Host, mode string) {
	t.Helper()
	h.Do(func() error {
		return h.Sysctl("net/ipv4/tcp_syncookies", mode)
	})
}

// Never one connection above the cap, with the kernel's SYN cookies and
// without, and every slot comes back.
func TestConnectionCapIsExact(t *testing.T) {
	const limit = 50
	for name, cookies := range map[string]string{"no cookies": "0", "cookies under pressure": "1", "always cookies": "2"} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, rule.Limits{Conns: limit})
			e.peer.PassAll("eth0") // a veth takes a RST sent by XDP only so
			setCookies(t, e.Host, cookies)
			s := serve(e.Host, t, "192.0.2.1:25")
			alive := e.burst(t, "192.0.2.2", *burst)
			if len(alive) != limit {
				t.Errorf("%d connections are alive, the cap is %d", len(alive), limit)
			}
			open, peak := e.open(t, "192.0.2.2")
			if open != limit || peak != limit || e.sockets(t, "192.0.2.2") != limit {
				t.Errorf("open %d, peak %d, sockets %d; want %d each", open, peak, e.sockets(t, "192.0.2.2"), limit)
			}
			closeAll(alive)
			s.closeAll()
			e.eventually(t, "192.0.2.2", 0)
		})
	}
}

// However a connection ends, its slot comes back, and no other's.
func TestSlotsComeBack(t *testing.T) {
	e := newEdge(t, rule.Limits{Conns: 10})
	e.peer.PassAll("eth0")
	s := serve(e.Host, t, "192.0.2.1:25")
	endings := map[string]func(c net.Conn){
		"client closes": func(c net.Conn) { c.Close(); s.closeAll() },
		"server closes": func(c net.Conn) { s.closeAll(); c.Close() },
		"client resets": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() },
		"half-close": func(c net.Conn) {
			_ = c.(*net.TCPConn).CloseWrite()
			time.Sleep(20 * time.Millisecond)
			s.closeAll()
			c.Close()
		},
		"server resets": func(c net.Conn) {
			s.mu.Lock()
			for _, sc := range s.conns {
				_ = sc.(*net.TCPConn).SetLinger(0)
			}
			s.mu.Unlock()
			s.closeAll()
			c.Close()
		},
	}
	for name, end := range endings {
		alive := e.burst(t, "192.0.2.2", 10)
		if len(alive) != 10 {
			t.Fatalf("before %q: %d connections, want 10", name, len(alive))
		}
		for _, c := range alive {
			end(c)
		}
		s.closeAll()
		e.eventually(t, "192.0.2.2", 0)
	}
}

// SYNs in an allowed source's name take none of its slots.
func TestSpoofedSYNsTakeNoSlot(t *testing.T) {
	const limit = 5
	e := newEdge(t, rule.Limits{Conns: limit})
	e.peer.PassAll("eth0")
	serve(e.Host, t, "192.0.2.1:25")
	e.peer.Do(func() error { return spoof("eth0", 2000) })
	if open, _ := e.open(t, "192.0.2.2"); open != 0 {
		t.Errorf("spoofed SYNs hold %d slots", open)
	}
	if alive := e.burst(t, "192.0.2.2", limit); len(alive) != limit {
		t.Errorf("%d of %d real connections came through beside spoofed SYNs", len(alive), limit)
	}
}

// spoof sends SYNs from 192.0.2.2 that no socket stands behind.
func spoof(ifname string, n int) error {
	ifc, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := loader.SYN(netip.MustParseAddr("192.0.2.2"), 25)
	for i := range 6 {
		frame[i] = 0xff // every host takes a broadcast frame in
	}
	copy(frame[30:34], []byte{192, 0, 2, 1})
	for i := range n {
		frame[34], frame[35] = byte(i>>8)|0x80, byte(i)
		checksum(frame)
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index}); err != nil && !errors.Is(err, syscall.ENOBUFS) {
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

// Connections that were open before the filter came count, and those that come
// and go while nobody holds it.
func TestCountSurvivesTheAgent(t *testing.T) {
	e := &edge{Host: lab.NewHost(t, "edge"), peer: lab.NewHost(t, "peer"), filter: open(t)}
	lab.Connect(e.Host, "eth0", e.peer, "eth0")
	e.Address("eth0", "192.0.2.1/24")
	e.peer.Address("eth0", "192.0.2.2/24")
	e.peer.PassAll("eth0")
	s := serve(e.Host, t, "192.0.2.1:25")
	before := e.burst(t, "192.0.2.2", 7)
	limits := rule.Limits{Conns: 10}
	e.sync(t, limits, "192.0.2.2/32")
	e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
	if open, _ := e.open(t, "192.0.2.2"); open != 7 {
		t.Errorf("%d of 7 connections from before were counted", open)
	}
	e.filter.Close()
	during := e.burst(t, "192.0.2.2", 30)
	if len(during) != 3 {
		t.Errorf("%d connections came through with nobody there, want 3", len(during))
	}
	closeAll(before[:4])
	f, err := loader.Open(loader.Options{PinDir: e.filter.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e.filter = f
	closeAll(before[4:])
	closeAll(during)
	s.closeAll()
	e.eventually(t, "192.0.2.2", 0)
}

// Where somebody took the ledger off, the count begins anew from the sockets.
func TestLostLedgerIsRebuilt(t *testing.T) {
	e := newEdge(t, rule.Limits{Conns: 10})
	e.peer.PassAll("eth0")
	s := serve(e.Host, t, "192.0.2.1:25")
	alive := e.burst(t, "192.0.2.2", 6)
	e.filter.Close()
	if err := os.RemoveAll(filepath.Join(e.filter.Dir(), "ledger")); err != nil {
		t.Fatal(err)
	}
	closeAll(alive[:2]) // nobody counts this
	time.Sleep(50 * time.Millisecond)
	f, err := loader.Open(loader.Options{PinDir: e.filter.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e.filter = f
	e.Do(func() error { _, err := f.Attach("eth0", loader.Native); return err })
	if open, _ := e.open(t, "192.0.2.2"); open != e.sockets(t, "192.0.2.2") {
		t.Errorf("%d counted, the kernel has %d sockets", open, e.sockets(t, "192.0.2.2"))
	}
	closeAll(alive[2:])
	s.closeAll()
	e.eventually(t, "192.0.2.2", 0)
}

// Connections come and go in every way from several clients at once while
// agents come and go: never more than the cap, and no drift at the end.
func TestChurn(t *testing.T) {
	const limit = 20
	e := newEdge(t, rule.Limits{Conns: limit})
	e.peer.PassAll("eth0")
	e.Listen("192.0.2.1:25") // closes each by itself, first
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range *churn / 8 {
				c, err := e.peer.Dial("192.0.2.2", "192.0.2.1:25", 200*time.Millisecond)
				if err != nil {
					continue
				}
				switch (worker + i) % 4 {
				case 0:
					_ = c.(*net.TCPConn).SetLinger(0)
				case 1:
					_ = c.(*net.TCPConn).CloseWrite()
				case 2:
					_, _ = io.Copy(io.Discard, c)
				}
				c.Close()
			}
		})
	}
	for range 3 {
		dir := e.filter.Dir()
		e.filter.Close()
		f, err := loader.Open(loader.Options{PinDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		e.filter = f
		e.Do(func() error { _, err := f.Attach("eth0", loader.Native); return err })
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	e.eventually(t, "192.0.2.2", 0)
	if _, peak := e.open(t, "192.0.2.2"); peak == 0 || peak > limit {
		t.Errorf("at most %d connections at once, the cap is %d", peak, limit)
	}
}
