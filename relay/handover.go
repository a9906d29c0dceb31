package relay

import (
	"crypto/rand"
	"net"
	"strings"
	"sync"
)

// handover is the net.Listener that go-smtp serves: it yields sessions that
// have been counted in and, on an implicit TLS port, have shaken hands.
type handover struct {
	guards chan *guard
	once   sync.Once
	done   chan struct{}
}

func newHandover() *handover {
	return &handover{guards: make(chan *guard), done: make(chan struct{})}
}

// give hands g to go-smtp, or ends it where go-smtp takes no more.
func (h *handover) give(g *guard) {
	select {
	case h.guards <- g:
	case <-h.done:
		g.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case g := <-h.guards:
		return g, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// newSessionID is short, random and safe everywhere.
func newSessionID() string { return strings.ToLower(rand.Text()[:12]) }
