package main

import (
	"fmt"
	"io"
	"net/netip"
	netsmtp "net/smtp"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/relay"
)

// TestFullDisk: where the spool's disk is full the answer is 452, and everything
// that was accepted arrives; with room there again, so does what comes then.
func TestFullDisk(t *testing.T) {
	together(t)
	if os.Getuid() != 0 {
		t.Fatal("needs root: it mounts a small disk")
	}
	dir, bin := build(t)
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", spool, "tmpfs", 0, "size=240m,mode=700,uid=65534,gid=65534"); err != nil { // three segments and a bit
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(spool, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p := startRelay(t, dir, bin)
	set := relay.Settings{
		Hostname: "relay.example", Retry: relay.RetryConfig{Min: relay.Duration(time.Second), Max: relay.Duration(time.Second)},
		Peers: []relay.Peer{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Name: "load"}},
	}
	configure := func() {
		t.Helper()
		if code, text := p.ask("PUT", "/v1/settings", set); code != 200 {
			t.Fatalf("settings: %d %s\n%s", code, text, p.said())
		}
	}
	configure()
	accepted := 0
	var refusal error
	for refusal == nil && accepted < 2000 {
		if refusal = p.hand(accepted); refusal == nil {
			accepted++
		}
	}
	if refusal == nil || !strings.Contains(refusal.Error(), "4.3.1 queue is full") || accepted < 100 {
		t.Fatalf("after %d messages of 448 KiB on a disk of 240 MiB: %v\n%s", accepted, refusal, p.said())
	}
	t.Logf("%d messages accepted, then: %v", accepted, refusal)
	port, got := sink(t)
	set.Smarthosts = []relay.Smarthost{{Host: "127.0.0.1", Port: port, TLS: relay.TLSNone}}
	configure()
	p.ask("POST", "/v1/queue/all/retry", nil)
	seen := map[string]int{}
	receive := func(n int) {
		t.Helper()
		for len(seen) < n {
			select {
			case m := <-got:
				_, text, _ := strings.Cut(m, "\r\n\r\n")
				id, _, _ := strings.Cut(text, "\r\n")
				seen[id]++
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d have arrived\n%s", len(seen), n, p.said())
			}
		}
	}
	receive(accepted)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // the log frees itself
		err := p.hand(accepted)
		if err == nil {
			break
		}
		if !strings.HasPrefix(err.Error(), "452") || time.Now().After(end) {
			t.Fatalf("with room on the disk again: %v\n%s", err, p.said())
		}
	}
	receive(accepted + 1)
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	p.terminate()
}

// hand gives the relay a message of 448 KiB that begins with its number.
func (p *process) hand(number int) error {
	p.t.Helper()
	c, err := netsmtp.Dial(p.smtp)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	for _, step := range []func() error{
		func() error { return c.Hello("load.example") }, func() error { return c.Mail("a@load.example") }, func() error { return c.Rcpt("b@sink.example") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "Subject: x\r\n\r\n%d\r\n", number); err != nil {
		return err
	}
	if _, err := io.WriteString(w, strings.Repeat(strings.Repeat("x", 62)+"\r\n", 7168)); err != nil {
		return err
	}
	return w.Close()
}
