package deliver

import (
	"io"
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait after the n-th failure: First, twice that, and
// so on up to Max, each give or take a fifth.
type Backoff struct {
	First, Max time.Duration
}

func (b Backoff) after(n int) time.Duration {
	d := b.First
	for ; n > 1 && d < b.Max; n-- {
		d *= 2
	}
	d = min(d, b.Max)
	return d - d/5 + rand.N(2*d/5+1)
}

// Sign reads a message and returns the header fields to put before it.
type Sign func(message io.Reader) ([]byte, error)

// Settings are what may change while the engine runs. Zero values take the
// defaults.
type Settings struct {
	Router   Router
	Hostname string        // our name in EHLO and bounces
	Item     Backoff       // after an item's attempt: 1 min to 1 h
	Hop      Backoff       // after a next hop could not be reached: 5 s to 10 min
	Expire   time.Duration // 5 days: then the sender gets the message back
	Notice   time.Duration // when to tell the sender of a delay; 0: only who asked (NOTIFY=DELAY), after 4 h
	Sign     Sign          // nil: nothing is signed
	MaxConns int           // connections to one next hop, 20; fixed when a hop is first used
}

func (s Settings) withDefaults() Settings {
	if s.Router == nil {
		s.Router = SmartHosts(nil)
	}
	if s.Hostname == "" {
		s.Hostname = "localhost"
	}
	if s.Item == (Backoff{}) {
		s.Item = Backoff{time.Minute, time.Hour}
	}
	if s.Hop == (Backoff{}) {
		s.Hop = Backoff{5 * time.Second, 10 * time.Minute}
	}
	if s.Expire == 0 {
		s.Expire = 5 * 24 * time.Hour
	}
	if s.MaxConns == 0 {
		s.MaxConns = 20
	}
	return s
}
