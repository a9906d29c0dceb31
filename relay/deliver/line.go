package deliver

import (
	"sync"
	"time"
)

const (
	// maxWaiting is how many items wait at a hop for a connection. The rest
	// waits in the queue, and is called when there is room.
	maxWaiting = 256

	// parkTime is when an item comes back that nobody has called: its call went
	// to somebody who was held or deleted in that moment.
	parkTime = time.Minute
)

// line is who wants a connection to a hop: few wait for it, many are parked in
// the queue, in the order in which they came. A parked item costs nothing but
// its id, until it is called, once.
type line struct {
	mu      sync.Mutex
	waiting int
	parked  []string
	isIn    map[string]bool // of parked
	called  map[string]bool // on their way here
}

func newLine() line { return line{isIn: map[string]bool{}, called: map[string]bool{}} }

// full says whether an item has to be parked. One that was called has not.
func (l *line) full(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.called[id] {
		delete(l.called, id)
		return false
	}
	return l.waiting+len(l.called) >= maxWaiting
}

// park books an item that has gone back to the queue.
func (l *line) park(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isIn[id] {
		l.isIn[id] = true
		l.parked = append(l.parked, id)
	}
}

func (l *line) enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
}

func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
}

// call makes parked items due, as many as there is room for, or all of them.
// ready says whether an item will come.
func (l *line) call(everybody bool, ready func(id string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.parked) == 0 {
		return
	}
	if l.waiting == 0 || everybody {
		clear(l.called) // those still missing do not come any more
	}
	for len(l.parked) > 0 && (everybody || l.waiting+len(l.called) < maxWaiting) {
		id := l.parked[0]
		l.parked = l.parked[1:]
		delete(l.isIn, id)
		if ready(id) && !everybody { // everybody: they may go elsewhere now
			l.called[id] = true
		}
	}
	if len(l.parked) == 0 {
		l.parked = nil
	}
}
