package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
)

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 30 * time.Second}, {"30000000", "7", 30 * time.Second},
		{"30000000", "8", 0}, {"-1", "", 0}, {"soon", "", 0},
	} {
		env := map[string]string{"WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid}
		if got := watchdogInterval(func(k string) string { return env[k] }, 7); got != c.want {
			t.Errorf("%q %q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

// The watchdog is fed while the agent answers, and no more once it hangs.
func TestWatchdogFollowsTheAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000")
	var hangs atomic.Bool
	asked := make(chan struct{}, 100)
	alive := func(context.Context) (control.Status, error) {
		asked <- struct{}{}
		if hangs.Load() {
			return control.Status{}, errors.New("no answer")
		}
		return control.Status{}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { keepWatchdog(ctx, alive, slog.New(slog.DiscardHandler)); close(done) }()
	buf := make([]byte, 64)
	l.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "WATCHDOG=1" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	hangs.Store(true)
	for len(asked) > 0 {
		<-asked
	}
	<-asked // one that may have begun before
	<-asked
	for { // what was sent until then
		l.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := l.Read(buf); err != nil {
			break
		}
	}
	<-asked
	<-asked
	cancel()
	<-done
	l.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := l.Read(buf); err == nil {
		t.Errorf("%q from an agent that hangs", buf[:n])
	}
}
