package loader_test

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader/rule"
)

// Who is over the rate is late, not lost: its connection goes on when there is
// room again, and no sooner.
func TestOverTheRateIsLate(t *testing.T) {
	t.Parallel()
	const burst, surplus, interval = 2, 2, 500 * time.Millisecond
	e := newEdge(t, rule.Limits{Interval: interval, Burst: burst})
	e.Listen("[::]:25")
	begin := time.Now()
	if n := e.greeted("192.0.2.2", burst+surplus); n != burst+surplus {
		t.Errorf("%d of %d connections were greeted in the end", n, burst+surplus)
	}
	// the filter's clock goes by ticks, of 10 ms at most
	if took := time.Since(begin); took < surplus*interval-10*time.Millisecond {
		t.Errorf("a burst of %d and %d more took %v, at one in %v", burst, surplus, took, interval)
	}
}

// Over some seconds what comes through is the burst and then N a second, though
// two CPUs at once attempt more than that.
func TestRateOverSeconds(t *testing.T) {
	t.Parallel()
	const burst, interval, stretch = 20, 10 * time.Millisecond, 3 * time.Second
	e := newEdge(t, rule.Limits{Interval: interval, Burst: burst})
	e.peer.PassAll("eth0")
	accepted := countAccepted(e.ListenRaw("192.0.2.1:25"))
	begin := time.Now()
	var wg sync.WaitGroup
	for cpu := range 2 {
		wg.Go(func() {
			if err := e.peer.Try(func() error { return attemptFrom(cpu, e.to(), begin.Add(stretch)) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := accepted.Load()
	took := time.Since(begin)
	if most := burst + int64(took/interval) + 1; n > most {
		t.Errorf("%d connections in %v, at most %d by the rate", n, took, most)
	}
	if least := burst + int64(stretch/interval)/3; n < least {
		t.Errorf("%d connections in %v, at least %d by the rate", n, took, least)
	}
}

// countAccepted closes what it accepts.
func countAccepted(l net.Listener) *atomic.Int64 {
	var n atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			c.Close()
		}
	}()
	return &n
}

// attemptFrom begins connections from 192.0.2.2 without waiting, by one CPU of
// those that there are.
func attemptFrom(cpu int, dst string, until time.Time) error {
	if err := pin(cpu); err != nil {
		return err
	}
	var fds []int
	defer func() { closeFDs(fds) }()
	for time.Now().Before(until) {
		more, err := connectMany("192.0.2.2", dst, 1)
		fds = append(fds, more...)
		if err != nil {
			return err
		}
		time.Sleep(4 * time.Millisecond)
	}
	return nil
}

// pin keeps this thread, and what its packets set off, on one CPU of those there are.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	return unix.SchedSetaffinity(0, &set)
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Where the server is elsewhere, a SYN is all that can be counted.
func TestRateOfForwardedPorts(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	e.setPort(t, rule.Port{Forward: true}, rule.Limits{Interval: time.Hour, Burst: 3})
	if n := e.greeted("192.0.2.2", 10); n != 3 {
		t.Errorf("%d connections came through a burst of 3", n)
	}
}

// greeted dials n times at once and counts the connections that are greeted.
func (e *edge) greeted(src string, n int) int {
	var passed atomic.Int32
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := e.peer.Dial(src, e.to()+":25", 4*patience) // a charged client must still be there
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(2 * patience))
			if _, err := c.Read(make([]byte, 16)); err == nil {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	return int(passed.Load())
}
