package main

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/synward/synward/agent/control"
)

// watch asks the agent and knocks at the port all the while, and notes the
// longest wait of each.
type watch struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	wait map[string]time.Duration
	errs int
}

// The things that are watched.
var watched = []string{"status", "explain", "events", "connect"}

func (s *stage) watch() *watch {
	ctx, stop := context.WithCancel(s.ctx)
	w := &watch{stop: stop, wait: map[string]time.Duration{}}
	cl := control.NewClient(s.socket())
	every := func(name string, pause time.Duration, ask func() error) {
		w.wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := ask()
				w.note(name, time.Since(began), err)
				time.Sleep(pause)
			}
		})
	}
	get := func(path string) func() error {
		return func() error {
			_, err := cl.Do(context.Background(), http.MethodGet, path, nil, nil, nil)
			return err
		}
	}
	every("status", 50*time.Millisecond, get("/v1/status"))
	every("explain", 50*time.Millisecond, get("/v1/explain?addr="+clientAddr))
	every("events", 50*time.Millisecond, get("/v1/events"))
	every("connect", 10*time.Millisecond, func() error {
		c, err := s.client.Dial("", netip.AddrPortFrom(netip.MustParseAddr(serverAddr), 25).String(), 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	return w
}

func (w *watch) note(name string, took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait[name] = max(w.wait[name], took)
	if err != nil {
		w.errs++
	}
}

// end ends the watch and returns the longest waits, and how often something failed.
func (w *watch) end() (map[string]time.Duration, int) {
	w.stop()
	w.wg.Wait()
	return w.wait, w.errs
}
