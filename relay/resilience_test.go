package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// dialFrom connects from another address of the loopback.
func dialFrom(t *testing.T, source, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestIdleAndStalledKeepNobodyOut: other sources hold hundreds of idle sessions
// and of handshakes that do not go on; a user logs in and sends all the same,
// and an idle session costs little.
func TestIdleAndStalledKeepNobodyOut(t *testing.T) {
	b := start(t, testSettings()) // 100 sessions a source, as by default
	before := memory()
	const idle, stalled = 400, 100
	for i := range idle {
		c := dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+i/80), b.addr["25"])
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if line, err := bufio.NewReaderSize(c, 64).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			t.Fatalf("idle session %d hears %q, %v", i, line, err)
		}
	}
	if each := (memory() - before) / idle; each > 64<<10 {
		t.Errorf("an idle session takes %d bytes, both ends", each)
	}
	for i := range stalled {
		c := dialFrom(t, fmt.Sprintf("127.0.2.%d", 1+i/80), b.addr["465"])
		if i%2 == 0 { // half a hello
			if _, err := c.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "they are all in", func() bool { return b.openSessions() == idle+stalled })
	for _, port := range []string{"465", "587"} {
		d := on(t, b, port)
		if port == "587" {
			d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", "c: STARTTLS", "s: 220 *", "tls", "c: EHLO c", "s* 7 250-*", "s: 250 *")
		} else {
			d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *")
		}
		d.steps(`c@ AUTH PLAIN {\x00alice\x00secret}`, "s: 235 *")
		d.steps(letter...)
	}
	// One source cannot take more than its share.
	for range 20 {
		dialFrom(t, "127.0.1.1", b.addr["25"])
	}
	c := dialFrom(t, "127.0.1.1", b.addr["25"])
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "421 4.7.0 ") {
		t.Errorf("one too many from a source hears %q, %v", line, err)
	}
}

// memory is what the process uses now, heap and stacks.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestFlood: a message without end is read to twice the limit, not for ever,
// and never kept.
func TestFlood(t *testing.T) {
	set := withPeer(testSettings())
	set.Limits.MaxSize = 1 << 20
	b := start(t, set)
	d := on(t, b, "25")
	d.steps(toData...)
	before := memory()
	line := []byte(strings.Repeat(strings.Repeat("x", 998)+"\r\n", 64))
	sent := 0
	for sent < 100<<20 {
		n, err := d.conn.Write(line)
		sent += n
		if err != nil {
			break
		}
	}
	if sent >= 100<<20 {
		t.Error("100 MB are read of a message that may have 1")
	}
	if grown := memory() - before; grown > 16<<20 {
		t.Errorf("the flood takes %d bytes of memory", grown)
	}
	eventually(t, "the session ends", func() bool { return b.openSessions() == 0 })
	d.step("queued 0")
}

// slowSource reads as a client that drips, by a clock of its own.
type slowSource struct{ now time.Time }

func (s *slowSource) read(b []byte, deadline time.Time) (int, error) {
	if s.now = s.now.Add(10 * time.Second); s.now.After(deadline) {
		return 0, errors.New("deadline")
	}
	b[0] = 'x'
	return 1, nil
}

// TestDrippedBody: a byte each ten seconds keeps no session for ever. The
// blocks' deadline is far: it is the message's own that ends it.
func TestDrippedBody(t *testing.T) {
	src := &slowSource{now: time.Now()}
	b := newBody(src, nil, make([]byte, 4096), 1<<20, time.Hour)
	_, err := io.Copy(io.Discard, b)
	if took := src.now.Sub(b.begun); !errors.Is(err, errCut) || took > bodyGrace+time.Minute {
		t.Errorf("after %v: %v", took, err)
	}
}
