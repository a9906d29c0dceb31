package loader_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// Never one connection above the cap at a server behind the edge, and every
// slot comes back.
func TestForwardedCapIsExact(t *testing.T) {
	t.Parallel()
	const limit = 50
	for name, way := range ways {
		for kind, cookies := range map[string]string{"no cookies": "0", "always cookies": "2"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				e := newForward(t, way, rule.Limits{Conns: limit}, 0)
				setCookies(t, e.behind, cookies)
				s := serve(e.behind, t, e.to()+":25")
				stop := e.highest(t, "192.0.2.2")
				alive := e.burst(t, "192.0.2.2", *burst)
				most := stop()
				open, peak := e.open(t, "192.0.2.2")
				if len(alive) != limit || open != limit || peak != limit || most != limit {
					t.Errorf("alive %d, open %d, peak %d, at the server %d; want %d each", len(alive), open, peak, most, limit)
				}
				closeAll(alive)
				s.closeAll()
				e.eventually(t, "192.0.2.2", 0)
			})
		}
	}
}

// However a connection through the edge ends, its slot comes back.
func TestForwardedSlotsComeBack(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Conns: 10}, 0)
	s := serve(e.behind, t, e.to()+":25")
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }
	serverResets := func() {
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		s.mu.Unlock()
		s.closeAll()
	}
	endings := []struct {
		name string
		end  func(c net.Conn)
	}{
		{"client closes", func(c net.Conn) { c.Close(); s.closeAll() }},
		{"server closes", func(c net.Conn) { s.closeAll(); c.Close() }},
		{"client resets", reset},
		{"client resets behind data", func(c net.Conn) { _, _ = c.Write(make([]byte, 100)); reset(c) }},
		{"server resets", func(c net.Conn) { serverResets(); c.Close() }},
		{"server resets behind data", func(c net.Conn) { _, _ = c.Write(make([]byte, 100)); serverResets(); c.Close() }},
		{"half-close", func(c net.Conn) {
			_ = c.(*net.TCPConn).CloseWrite()
			time.Sleep(20 * time.Millisecond)
			s.closeAll()
			c.Close()
		}},
	}
	for _, tc := range endings {
		alive := e.burst(t, "192.0.2.2", 10)
		if open, _ := e.open(t, "192.0.2.2"); len(alive) != 10 || open != 10 {
			t.Fatalf("before %q: %d connections, %d counted, want 10", tc.name, len(alive), open)
		}
		for _, c := range alive {
			tc.end(c)
		}
		s.closeAll()
		e.eventually(t, "192.0.2.2", 0)
	}
}

// A RST with the number of the client's FIN ends the connection for Linux
// (tcp_reset_check): so it does here. A client that has closed sends it when data
// comes that crossed its FIN.
func TestForwardedResetAtTheFIN(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Conns: 2}, 0)
	serve(e.behind, t, e.to()+":25")
	c := e.burst(t, "192.0.2.2", 1)[0].(*net.TCPConn)
	seq, err := nextSequence(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // it is acknowledged
	frame := loader.SYN(netip.MustParseAddr("192.0.2.2"), 25)
	copy(frame, e.hardware(t, "eth0"))
	copy(frame[30:34], netip.MustParseAddr(e.to()).AsSlice())
	binary.BigEndian.PutUint16(frame[34:], c.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	binary.BigEndian.PutUint32(frame[38:], seq)
	frame[47] = 0x04 // RST
	checksum(frame)
	e.peer.Do(func() error { return sendFrames("eth0", 1, func(int) []byte { return frame }) })
	e.eventually(t, "192.0.2.2", 0)
	if n := e.sockets(t, "192.0.2.2"); n != 0 {
		t.Errorf("the server still has %d sockets", n)
	}
}

// A client that vanishes, and a connection that is silent for too long, give
// their slots back; what then speaks again does not come beyond the cap.
func TestForwardedSilence(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Conns: 5}, 2*patience)
	s := serve(e.behind, t, e.to()+":25")
	silent := e.burst(t, "192.0.2.2", 5)
	e.eventually(t, "192.0.2.2", 0)
	var busy []net.Conn
	for range 5 {
		c, err := e.peer.Dial("192.0.2.2", e.to()+":25", patience)
		if err != nil {
			t.Fatalf("a connection in the place of one that is silent: %v", err)
		}
		busy = append(busy, c)
	}
	defer closeAll(busy)
	stop := keepBusy(busy)
	if _, err := silent[0].Write([]byte("here again")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for _, c := range s.conns[:5] { // the silent ones
		_ = c.SetReadDeadline(time.Now().Add(patience / 5))
		if n, err := c.Read(make([]byte, 16)); err == nil {
			t.Errorf("%d bytes of a sixth connection came through a cap of 5", n)
		}
	}
	s.mu.Unlock()
	stop()
	e.peer.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	e.eventually(t, "192.0.2.2", 0)
}

// SYNs in an allowed source's name use up neither its slots nor its rate.
func TestForwardedSpoofedSYNsTakeNothing(t *testing.T) {
	t.Parallel()
	const limit = 5
	e := newForward(t, routed, rule.Limits{Conns: limit, Interval: time.Hour, Burst: limit + 2}, 0)
	serve(e.behind, t, e.to()+":25")
	mac := e.hardware(t, "eth0")
	e.peer.Do(func() error {
		return errors.Join(spoof(2000, e.to(), mac, nil), spoof(500, e.to(), mac, guess))
	})
	if open, _ := e.open(t, "192.0.2.2"); open != 0 {
		t.Errorf("spoofed SYNs hold %d slots", open)
	}
	if alive := e.burst(t, "192.0.2.2", limit); len(alive) != limit {
		t.Errorf("%d of %d real connections came through beside spoofed SYNs", len(alive), limit)
	}
}

// The rate is charged at the end of a handshake, exactly.
func TestForwardedRateIsExact(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Interval: time.Hour, Burst: 3}, 0)
	e.behind.Listen(e.to() + ":25")
	if n := e.greeted("192.0.2.2", 10); n != 3 {
		t.Errorf("%d connections came through a burst of 3", n)
	}
}

// One port used again and again, while its last connection still holds its slot,
// saves nothing of the rate.
func TestForwardedRateOfOnePort(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Interval: time.Hour, Burst: 3}, 0)
	e.behind.Listen(e.to() + ":25")
	greeted := 0
	for range 6 {
		_ = e.peer.Try(func() error {
			d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.2"), Port: 5000}}
			d.SetMultipathTCP(false)
			c, err := d.Dial("tcp", e.to()+":25")
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.SetReadDeadline(time.Now().Add(patience / 2))
			if _, err := c.Read(make([]byte, 16)); err == nil {
				greeted++
			}
			return nil
		})
	}
	if greeted != 3 {
		t.Errorf("%d connections came through a burst of 3", greeted)
	}
}

// Connections from before the filter are counted as soon as their server says
// something; those that come and go with no agent there, as ever.
func TestForwardedCountSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Conns: 10}, 0)
	s := serve(e.behind, t, e.to()+":25")
	e.Do(func() error { return e.filter.Detach("eth0") })
	before := e.burst(t, "192.0.2.2", 7)
	e.attach(t)
	s.mu.Lock()
	for _, c := range s.conns {
		_, _ = c.Write([]byte("250 still here\r\n"))
	}
	s.mu.Unlock()
	e.eventually(t, "192.0.2.2", 7)
	e.filter.Close()
	during := e.burst(t, "192.0.2.2", 30)
	if len(during) != 3 {
		t.Errorf("%d connections came through with nobody there, want 3", len(during))
	}
	closeAll(before[:4])
	e.reopen(t)
	e.attach(t)
	closeAll(before[4:])
	closeAll(during)
	s.closeAll()
	e.eventually(t, "192.0.2.2", 0)
}

// Connections come and go in every way while agents come and go: never more
// than the cap, and no drift at the end.
func TestForwardedChurn(t *testing.T) {
	t.Parallel()
	const limit = 20
	e := newForward(t, routed, rule.Limits{Conns: limit}, 0)
	e.behind.Listen(e.to() + ":25")
	stop := e.highest(t, "192.0.2.2")
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range *churn / 8 {
				c, err := e.peer.Dial("192.0.2.2", e.to()+":25", 200*time.Millisecond)
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
		e.filter.Close()
		e.reopen(t)
		e.attach(t)
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	e.eventually(t, "192.0.2.2", 0)
	most := stop()
	if _, peak := e.open(t, "192.0.2.2"); peak == 0 || peak > limit || most > limit {
		t.Errorf("at most %d connections at once, %d at the server; the cap is %d", peak, most, limit)
	}
}

// IPv6 sources are counted by their /64 here, too.
func TestForwardedIPv6(t *testing.T) {
	t.Parallel()
	const limit = 3
	e := newForward(t, bridged, rule.Limits{Conns: limit}, 0)
	e.peer.Address("eth0", "2001:db8::2/64", "2001:db8::3/64")
	e.behind.Address("eth0", "2001:db8::9/64")
	s := serve(e.behind, t, "[2001:db8::9]:25")
	var alive []net.Conn
	for i := range 2 * limit {
		c, err := e.peer.Dial([]string{"2001:db8::2", "2001:db8::3"}[i%2], "[2001:db8::9]:25", patience)
		if err != nil {
			continue
		}
		alive = append(alive, c)
	}
	if open, peak := e.open(t, "2001:db8::2"); len(alive) != limit || open != limit || peak != limit {
		t.Errorf("alive %d, open %d, peak %d; want %d of the /64", len(alive), open, peak, limit)
	}
	closeAll(alive)
	s.closeAll()
	e.eventually(t, "2001:db8::2", 0)
}

// One cap for all that the entry covers, of both families.
func TestForwardedSharedCap(t *testing.T) {
	t.Parallel()
	e := newForward(t, bridged, rule.Limits{Conns: 6, Shared: true}, 0)
	e.peer.Address("eth0", "2001:db8::2/64")
	e.behind.Address("eth0", "2001:db8::1/64")
	serve(e.behind, t, e.to()+":25")
	serve(e.behind, t, "[2001:db8::1]:25")
	four := len(e.burst(t, "192.0.2.2", 4))
	six := len(e.burst(t, "2001:db8::2", 10))
	if four != 4 || six != 2 {
		t.Errorf("%d and %d connections under one shared cap of 6, want 4 and 2", four, six)
	}
}

// The egress is watched where a port asks for it, and not a moment longer.
func TestEgressComesAndGoes(t *testing.T) {
	t.Parallel()
	e := newForward(t, routed, rule.Limits{Conns: 5}, 0)
	serve(e.behind, t, e.to()+":25")
	if at := e.attach(t); at.Egress == "" || at.Warning != "" {
		t.Errorf("attached: %+v; want egress watched", at)
	}
	e.burst(t, "192.0.2.2", 5)
	e.setPort(t, rule.Port{}, rule.Limits{Conns: 5})
	if at := e.attach(t); at.Egress != "" || at.Warning != "" {
		t.Errorf("attached with no server elsewhere: %+v", at)
	}
	e.eventually(t, "192.0.2.2", 0) // nobody can follow them any more
	e.setPort(t, rule.Port{Forward: true}, rule.Limits{Conns: 5})
	e.Do(func() error {
		on, err := e.filter.Attachments()
		if len(on) != 1 || on[0].Egress != "" || !strings.Contains(on[0].Warning, "answers by eth0 are not seen") {
			t.Errorf("attachments with a server elsewhere and no egress: %+v", on)
		}
		return err
	})
}
