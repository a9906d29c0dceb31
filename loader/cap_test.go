package loader_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

func setCookies(t *testing.T, h *lab.Host, mode string) {
	t.Helper()
	h.Do(func() error {
		return h.Sysctl("net/ipv4/tcp_syncookies", mode)
	})
}

// Never one connection above the cap, with the kernel's SYN cookies and
// without, and every slot comes back.
func TestConnectionCapIsExact(t *testing.T) {
	t.Parallel()
	for name, cookies := range cookieModes {
		for _, src := range []string{"192.0.2.2", "2001:db8::2"} {
			t.Run(name+", "+src, func(t *testing.T) {
				t.Parallel()
				testCap(t, src, cookies)
			})
		}
	}
}

func testCap(t *testing.T, src, cookies string) {
	const limit = 50
	e := newEdge(t, rule.Limits{Conns: limit})
	e.peer.PassAll("eth0") // a veth takes a RST sent by XDP only so
	setCookies(t, e.Host, cookies)
	s := serve(e.Host, t, net.JoinHostPort(e.toward(src), "25"))
	alive := e.burst(t, src, *burst)
	if len(alive) != limit {
		t.Errorf("%d connections are alive, the cap is %d", len(alive), limit)
	}
	open, peak := e.open(t, src)
	if open != limit || peak != limit || e.sockets(t, src) != limit {
		t.Errorf("open %d, peak %d, sockets %d; want %d each", open, peak, e.sockets(t, src), limit)
	}
	closeAll(alive)
	s.closeAll()
	e.eventually(t, src, 0)
}

// However a connection ends, its slot comes back, and no other's.
func TestSlotsComeBack(t *testing.T) {
	t.Parallel()
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

// Connections that were open before the filter came count, and those that come
// and go while nobody holds it.
func TestCountSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	e := bareEdge(t)
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
	e.reopen(t)
	closeAll(before[4:])
	closeAll(during)
	s.closeAll()
	e.eventually(t, "192.0.2.2", 0)
}

// Where somebody took the ledger off, the count begins anew from the sockets.
func TestLostLedgerIsRebuilt(t *testing.T) {
	t.Parallel()
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
	e.reopen(t)
	e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
	if open, _ := e.open(t, "192.0.2.2"); open != e.sockets(t, "192.0.2.2") {
		t.Errorf("%d counted, the kernel has %d sockets", open, e.sockets(t, "192.0.2.2"))
	}
	closeAll(alive[2:])
	s.closeAll()
	e.eventually(t, "192.0.2.2", 0)
}

// Connections come and go in every way from several clients at once while
// agents come and go: never more than the cap, and no drift, neither in a quiet
// moment, with some connections open, nor at the end.
func TestChurn(t *testing.T) {
	t.Parallel()
	for name, cookies := range map[string]string{"no cookies": "0", "always cookies": "2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testChurn(t, cookies)
		})
	}
}

func testChurn(t *testing.T, cookies string) {
	const limit, more = 20, 3
	e := newEdge(t, rule.Limits{Conns: limit})
	e.peer.PassAll("eth0")
	setCookies(t, e.Host, cookies)
	e.Listen("192.0.2.1:25")                     // closes each by itself, first
	patient := serve(e.Host, t, "192.0.2.1:465") // keeps them
	var held []net.Conn
	for range 2 {
		e.churn(t, *churn/2)
		e.eventually(t, "192.0.2.2", uint64(len(held)))
		for range more {
			c, err := e.peer.Dial("192.0.2.2", "192.0.2.1:465", 5*time.Second)
			if err != nil {
				t.Fatalf("a connection below the cap: %v", err)
			}
			held = append(held, c)
		}
		e.eventually(t, "192.0.2.2", uint64(len(held)))
		if open, _ := e.open(t, "192.0.2.2"); open != e.sockets(t, "192.0.2.2") {
			t.Errorf("in a quiet moment %d connections are counted, the kernel has %d sockets", open, e.sockets(t, "192.0.2.2"))
		}
	}
	patient.accepted(t, len(held)) // what it accepts after closeAll would stay open
	closeAll(held)
	patient.closeAll()
	e.eventually(t, "192.0.2.2", 0)
	if _, peak := e.open(t, "192.0.2.2"); peak == 0 || peak > limit {
		t.Errorf("at most %d connections at once, the cap is %d", peak, limit)
	}
}

// churn has n connections come and go, and three agents.
func (e *edge) churn(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
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
		e.filter.Close()
		e.reopen(t)
		e.Do(func() error { _, err := e.filter.Attach("eth0", loader.Native); return err })
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
}
