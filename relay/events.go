package relay

import (
	"context"
	"sync"
	"time"
)

// The kinds of Event.
const (
	Accepted     = "accepted"     // a message is in the queue
	Refused      = "refused"      // a sender, recipient or message was refused
	AuthFailure  = "auth-failure" // a login failed
	Unauthorized = "unauthorized" // somebody tried what he has no right to
	Delivered    = "delivered"    // the next hop has it
	Deferred     = "deferred"     // to be tried again
	Bounced      = "bounced"      // failed for good
	OverQuota    = "over-quota"   // a user or a source has used up his quota: told once
	Lost         = "lost"         // the reader was too slow: Message says how many
)

// Event is the outcome of a session, or of a delivery.
type Event struct {
	Seq     uint64    `json:"seq"` // counts up from 1 in this process
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Session string    `json:"session,omitempty"`
	Source  string    `json:"source,omitempty"` // address
	Port    uint16    `json:"port,omitempty"`
	User    string    `json:"user,omitempty"`
	Item    string    `json:"item,omitempty"` // id in the queue
	From    string    `json:"from,omitempty"`
	Rcpt    []string  `json:"rcpt,omitempty"`  // the first 20, so that a line stays short
	Rcpts   int       `json:"rcpts,omitempty"` // how many there are
	Size    int64     `json:"size,omitempty"`  // bytes
	Reply   string    `json:"reply,omitempty"`
	NextHop string    `json:"next_hop,omitempty"`
	Message string    `json:"message,omitempty"`
}

// maxEventRcpts bounds Event.Rcpt.
const maxEventRcpts = 20

// kept is how many events are held for a reader that comes later or lags.
const kept = 4096

// Events is the bounded memory of what happened. Writers never wait: a reader
// that falls more than 4096 behind misses some, and is told how many.
type Events struct {
	now  func() time.Time
	mu   sync.Mutex
	ring []Event
	last uint64
	more chan struct{} // closed at the next event
}

// NewEvents returns an empty memory.
func NewEvents(now func() time.Time) *Events {
	return &Events{now: now, more: make(chan struct{})}
}

// Add keeps e, with the time of now where it has none.
func (m *Events) Add(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	e.Seq = m.last
	if e.Time.IsZero() {
		e.Time = m.now()
	}
	if len(m.ring) < kept {
		m.ring = append(m.ring, e)
	} else {
		m.ring[(m.last-1)%kept] = e
	}
	close(m.more)
	m.more = make(chan struct{})
}

// Last is the number of the newest event, 0 where there is none.
func (m *Events) Last() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// Since returns the events after number seq that are still held, and how many
// are lost. The channel closes when there are more.
func (m *Events) Since(seq uint64) (events []Event, lost uint64, more <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq >= m.last {
		return nil, 0, m.more
	}
	first := seq + 1
	if oldest := m.last - uint64(len(m.ring)) + 1; first < oldest {
		lost, first = oldest-first, oldest
	}
	for n := first; n <= m.last; n++ {
		events = append(events, m.ring[(n-1)%kept])
	}
	return events, lost, m.more
}

// Follow calls f with every event after number seq until ctx ends or f fails.
func (m *Events) Follow(ctx context.Context, seq uint64, f func([]Event, uint64) error) error {
	for {
		events, lost, more := m.Since(seq)
		if len(events) > 0 {
			if err := f(events, lost); err != nil {
				return err
			}
			seq = events[len(events)-1].Seq
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}
