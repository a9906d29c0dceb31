package loader_test

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// cookieModes are the values of net.ipv4.tcp_syncookies.
var cookieModes = map[string]string{"no cookies": "0", "cookies under pressure": "1", "always cookies": "2"}

// awaitFloods makes room for as many half-open connections as a flood makes or,
// where cookies come under pressure, for so few that they come.
func awaitFloods(t *testing.T, h *lab.Host, cookies string) {
	t.Helper()
	room := "4096"
	if cookies == "1" {
		room = "256"
	}
	setCookies(t, h, cookies)
	h.Do(func() error {
		return errors.Join(h.Sysctl("net/core/somaxconn", room), h.Sysctl("net/ipv4/tcp_max_syn_backlog", "65536"))
	})
}

// desert takes 192.0.2.2 from the peer: who is answered there answers nothing, no
// RST either. home gives it back.
func (e *edge) desert(t *testing.T) (home func()) {
	t.Helper()
	addr := netip.MustParsePrefix("192.0.2.2/24")
	mac := hardware(t, e.peer, "eth0")
	e.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.Addr().AsSlice(), HardwareAddr: mac,
		})
	})
	e.peer.Do(func() error {
		if err := e.peer.Sysctl("net/ipv4/conf/all/promote_secondaries", "1"); err != nil {
			return err // 192.0.2.3 would go as well
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr.String())
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, a)
	})
	return func() { e.peer.Address("eth0", addr.String()) }
}

// flood sends SYNs, and ACKs with guesses, in the name of 192.0.2.2, and sees to it
// that TCP has answered the SYNs.
func (e *edge) flood(t *testing.T, n int, cookies string) {
	t.Helper()
	home := e.desert(t)
	mac := e.hardware(t, "eth0")
	e.peer.Do(func() error {
		return errors.Join(spoof(n, e.to(), mac, nil), spoof(n, e.to(), mac, guess))
	})
	var half, sent int
	reached := func() bool {
		half, sent = e.halfOpen(t), e.cookiesSent(t)
		return (cookies == "2" || half >= 200) && (cookies == "0" || sent >= 200)
	}
	for range 100 {
		if reached() {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !reached() {
		t.Fatalf("after %d spoofed SYNs %d connections are half open and %d cookies were sent: the flood does not reach TCP",
			n, half, sent)
	}
	home()
}

// halfOpen is how many handshakes the edge's TCP remembers.
func (e *edge) halfOpen(t *testing.T) (n int) {
	t.Helper()
	e.Do(func() error {
		all, err := netlink.SocketDiagTCP(unix.AF_INET)
		for _, s := range all {
			if s.State == netlink.TCP_SYN_RECV {
				n++
			}
		}
		return err
	})
	return n
}

// cookiesSent is how many SYN cookies the edge's TCP has sent.
func (e *edge) cookiesSent(t *testing.T) int {
	return e.netstat(t, e.Host, "netstat", "SyncookiesSent")
}

// netstat is a counter of a host's network stack.
func (e *edge) netstat(t *testing.T, h *lab.Host, file, counter string) (n int) {
	t.Helper()
	h.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return err
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 { // names, and below them values
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j, name := range names {
				if name == counter {
					n, err = strconv.Atoi(values[j])
					return err
				}
			}
		}
		return errors.New("no counter " + counter)
	})
	return n
}

// SYNs in an allowed source's name take none of its slots, though the server
// answers them and waits.
func TestSpoofedSYNsTakeNoSlot(t *testing.T) {
	t.Parallel()
	const limit = 5
	for name, cookies := range cookieModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, rule.Limits{Conns: limit})
			e.peer.PassAll("eth0")
			awaitFloods(t, e.Host, cookies)
			serve(e.Host, t, "192.0.2.1:25")
			e.flood(t, 2000, cookies)
			if open, peak := e.open(t, "192.0.2.2"); open != 0 || peak != 0 {
				t.Errorf("spoofed SYNs hold %d slots, and held %d", open, peak)
			}
			if alive := e.burst(t, "192.0.2.2", limit); len(alive) != limit {
				t.Errorf("%d of %d real connections came through beside spoofed SYNs", len(alive), limit)
			}
		})
	}
}

// Nor do they use up anything of its rate, which is exact.
func TestRateCapIsExact(t *testing.T) {
	t.Parallel()
	const burst, attempts = 7, 80
	for name, cookies := range cookieModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, rule.Limits{Interval: time.Hour, Burst: burst})
			e.peer.PassAll("eth0")
			awaitFloods(t, e.Host, cookies)
			e.Listen("192.0.2.1:25")
			e.flood(t, 2000, cookies)
			if n := e.greeted("192.0.2.2", attempts); n != burst {
				t.Errorf("%d connections of %d came through a burst of %d", n, attempts, burst)
			}
			for src, want := range map[string]rule.Verdict{"192.0.2.2": rule.Drop, "2001:db8::2": rule.Pass} {
				a, err := e.filter.Probe(netip.MustParseAddr(src), 25)
				if err != nil || a.Verdict != want || (want == rule.Drop) != (a.Reason == loader.RateCap) {
					t.Errorf("probe of %s after the burst: %+v, %v", src, a, err)
				}
			}
		})
	}
}
