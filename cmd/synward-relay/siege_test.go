package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
)

// full is the size that the documentation speaks of: go test -run Siege -v -args -full.
var full = flag.Bool("full", false, "besiege the relay in full size")

// size is what a number is in full, and here.
func size(all, few int) int {
	if *full {
		return all
	}
	return few
}

// together has a test that mostly waits run beside the others; in full each is
// alone, as it is measured.
func together(t *testing.T) {
	if !*full {
		t.Parallel()
	}
}

// siege is the real process, in its sandbox, with an account and no next hop.
type siege struct {
	*process
	implicit string // address of the listener with TLS from the first byte
}

func besiege(t *testing.T, limits relay.Limits) *siege {
	t.Helper()
	dir, bin := build(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &siege{implicit: l.Addr().String()}
	s.process = startWith(t, dir, bin, ",465/implicit", l)
	l.Close()
	hash, err := account.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	set := relay.Settings{Hostname: "relay.example", Accounts: []account.Account{{Name: "alice", Hash: hash}}, Limits: limits}
	set.Peers = []relay.Peer{{Prefix: netip.MustParsePrefix("127.9.0.0/16"), Name: "flood"}}
	if code, text := s.ask("PUT", "/v1/settings", set); code != 200 {
		t.Fatalf("settings: %d %s\n%s", code, text, s.said())
	}
	s.enters() // what the first login takes is there before anything is measured
	return s
}

// enters has a user log in and send, as if nothing were.
func (s *siege) enters() {
	s.t.Helper()
	begun := time.Now()
	if err := submit(s.smtp, "alice", "secret"); err != nil {
		s.t.Fatalf("a user is kept out: %v\n%s", err, s.said())
	}
	s.t.Logf("a user has logged in and sent a message in %v", time.Since(begun).Round(time.Millisecond))
}

// memory is the process's proportional set size in KiB.
func (s *siege) memory() int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatal("no Pss")
	return 0
}

func (s *siege) sessions() int {
	_, text := s.ask("GET", "/v1/status", nil)
	var st struct {
		Sessions int `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		s.t.Fatal(err)
	}
	return st.Sessions
}

func (s *siege) awaitSessions(n int) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); s.sessions() != n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d sessions, not %d\n%s", s.sessions(), n, s.said())
		}
	}
}

// from connects as one of many sources, 80 connections each.
func (s *siege) from(network, i int, addr string) net.Conn {
	s.t.Helper()
	src := netip.AddrFrom4([4]byte{127, byte(network), byte(i / 80 / 250), byte(1 + i/80%250)})
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), Timeout: 20 * time.Second}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	return c
}

// hears reads one reply, which has to begin with code.
func (s *siege) hears(c net.Conn, code string) {
	s.t.Helper()
	r := bufio.NewReaderSize(c, 256)
	for {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, code) {
			s.t.Fatalf("the relay says %q, %v, not %s\n%s", line, err, code, s.said())
		}
		if len(line) > 3 && line[3] == ' ' {
			return
		}
	}
}

func (s *siege) says(c net.Conn, text, code string) {
	s.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		s.t.Fatal(err)
	}
	s.hears(c, code)
}

// TestSiegeIdleTLS: thousands of sessions under TLS that do nothing take a
// bounded memory, and keep nobody out.
func TestSiegeIdleTLS(t *testing.T) {
	n := size(5000, 400)
	s := besiege(t, relay.Limits{Sessions: n + 100})
	before := s.memory()
	var wg sync.WaitGroup
	places := make(chan struct{}, 16)
	for i := range n {
		c := s.from(8, i, s.implicit)
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			k := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_, err := io.WriteString(k, "EHLO c\r\n")
			b := make([]byte, 4096)
			for got := ""; err == nil && !strings.Contains(got, "250 SIZE"); {
				var m int
				m, err = k.Read(b)
				got += string(b[:m])
			}
			if err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s.awaitSessions(n)
	each := float64(s.memory()-before) / float64(n)
	t.Logf("%d idle sessions under TLS: %.1f KiB each, %d MiB in all", n, each, s.memory()>>10)
	if each > 64 {
		t.Errorf("an idle session takes %.1f KiB", each)
	}
	s.enters()
}

// TestSiegeStalled: thousands of idle connections and hundreds of handshakes
// that do not go on, from other sources, keep nobody out, and the handshakes end.
func TestSiegeStalled(t *testing.T) {
	together(t)
	idle, stalled := size(2000, 300), size(200, 40)
	limits := relay.Limits{}
	if !*full {
		limits.Handshake = relay.Duration(2 * time.Second)
	}
	s := besiege(t, limits)
	for i := range idle {
		s.hears(s.from(8, i, s.smtp), "220")
	}
	for i := range stalled {
		c := s.from(7, i, s.implicit)
		if i%2 == 0 { // half a hello
			if _, err := c.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.enters()
	s.awaitSessions(idle)
	t.Logf("%d idle connections, %d stalled handshakes, which have ended", idle, stalled)
	s.enters()
}

// TestSiegeSlow: clients that drip their commands, and such as drip their
// messages, are ended by the clock, and keep nobody out.
func TestSiegeSlow(t *testing.T) {
	together(t)
	n := size(1000, 100)
	patience := time.Duration(size(8, 3)) * time.Second
	s := besiege(t, relay.Limits{Command: relay.Duration(patience)})
	var wg sync.WaitGroup
	for i := range n {
		c := s.from(9, i, s.smtp)
		s.hears(c, "220")
		if i%2 == 0 {
			s.says(c, "HELO c\r\n", "250")
			s.says(c, "MAIL FROM:<a@example.org>\r\n", "250")
			s.says(c, "RCPT TO:<b@example.com>\r\n", "250")
			s.says(c, "DATA\r\n", "354")
		}
		wg.Go(func() {
			// Commands drip; a message stops, as one that drips has five minutes.
			for begun := time.Now(); time.Since(begun) < 10*patience; time.Sleep(500 * time.Millisecond) {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				if i%2 == 0 {
					break
				}
			}
			b, err := io.ReadAll(c)
			if !bytes.HasPrefix(b, []byte("421 4.4.2 ")) && !errors.Is(err, os.ErrDeadlineExceeded) && len(b) > 0 {
				t.Errorf("a slow client hears %q, %v", b, err)
			}
		})
	}
	s.enters()
	wg.Wait()
	s.awaitSessions(0)
	t.Logf("%d slow clients, all ended", n)
}

// TestSiegeFloods: messages beyond the limit, lines without end and lines as
// long as a message may be. Memory stays, and a long line within the limit
// arrives whole.
func TestSiegeFloods(t *testing.T) {
	bytesEach, n := int64(size(100<<20, 24<<20)), size(8, 3)
	limit := bytesEach / 2
	s := besiege(t, relay.Limits{MaxSize: limit})
	before := s.memory()
	begin := func(i int) net.Conn {
		c := s.from(9, i*80, s.smtp)
		s.hears(c, "220")
		for _, l := range []string{"HELO c\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<b@example.com>\r\n"} {
			s.says(c, l, "250")
		}
		s.says(c, "DATA\r\n", "354")
		return c
	}
	peak := 0
	var wg sync.WaitGroup
	for i := range n {
		c := begin(i)
		block := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 64)
		if i%2 == 1 {
			block = strings.Repeat("x", 64<<10) // one line
		}
		wg.Go(func() {
			defer c.Close()
			for sent := int64(0); sent < bytesEach; sent += int64(len(block)) {
				if _, err := io.WriteString(c, block); err != nil {
					return // had enough
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	s.enters()
	for more := true; more; {
		select {
		case <-ended:
			more = false
		case <-time.After(20 * time.Millisecond):
		}
		peak = max(peak, s.memory())
	}
	t.Logf("%d floods of %d MiB: %d MiB of memory more at most", n, bytesEach>>20, (peak-before)>>10)
	if peak-before > 160<<10 { // 64 MiB of it is the queue's cache
		t.Errorf("the floods take %d MiB", (peak-before)>>10)
	}
	// A command line without end.
	c := s.from(9, n*80, s.smtp)
	s.hears(c, "220")
	go io.Copy(c, io.LimitReader(zeroes{}, bytesEach)) // until it is cut off
	s.hears(c, "500 5.5.2 line is too long")
	// One line as long as a message may be.
	c = begin(n + 1)
	head := "Subject: long\r\n\r\n"
	if _, err := io.Copy(c, io.MultiReader(strings.NewReader(head), io.LimitReader(zeroes{}, limit-1024))); err != nil {
		t.Fatal(err)
	}
	s.says(c, "\r\n.\r\n", "250")
	c.Close()
	s.awaitSessions(0)
	var st struct {
		Queue struct {
			Items int   `json:"items"`
			Bytes int64 `json:"bytes"`
		} `json:"queue"`
	}
	if _, text := s.ask("GET", "/v1/status", nil); json.Unmarshal([]byte(text), &st) != nil || st.Queue.Items != 3 || st.Queue.Bytes < limit-1024 || st.Queue.Bytes > limit+4096 {
		t.Errorf("in the queue are %+v", st.Queue)
	}
}

// zeroes are digits, without end.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}
