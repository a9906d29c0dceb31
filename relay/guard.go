package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// mode is what the next bytes from the client are.
type mode int

const (
	modeCommand mode = iota // a command line
	modeAuth                // a line of the AUTH exchange
	modeData                // a message, which body reads; go-smtp gets its last line only
)

// guard is the net.Conn that go-smtp gets instead of the socket. It ends TLS,
// lets one checked line through at a time, and answers in our words. As
// go-smtp works through a line before it reads the next, every Read finds all
// earlier lines answered; replies to pipelined lines leave in one write.
//
// Only the session's own goroutine touches it, save drain and kill.
type guard struct {
	srv      *Server
	port     uint16
	implicit bool
	id       string // of the session, in logs, trace headers and events
	source   netip.Addr
	log      *slog.Logger

	raw  net.Conn  // the socket
	conn net.Conn  // the socket, or TLS over it
	tls  *tls.Conn // nil before TLS

	mode    mode
	in      []byte // read and not used yet, from pos on
	pos     int
	feed    []byte // for go-smtp
	part    []byte // of a line that go-smtp writes
	out     []byte // replies not sent yet
	cmd     command
	waiting bool   // cmd was let through and is not answered yet
	says    *reply // the session's answer to cmd, instead of go-smtp's
	greeted bool   // EHLO or HELO since the connection or TLS began
	helo    string // what it said
	esmtp   bool   // it was EHLO
	traces  int    // messages begun
	closing bool   // nothing more is read; what is in out is sent
	closed  bool
	tally   tally
	session *session

	mu       sync.Mutex
	draining bool
	idle     bool // blocked on the first line of a transaction: drain may end it
}

var errClosing = errors.New("session is closing")

// Read hands go-smtp its next line.
func (g *guard) Read(b []byte) (int, error) {
	if len(g.feed) == 0 {
		if err := g.next(b); err != nil {
			return 0, io.EOF // the client has been told, go-smtp need not say it again
		}
	}
	n := copy(b, g.feed)
	g.feed = g.feed[n:]
	return n, nil
}

// next puts a line into feed. scratch is memory to read into, so that an idle
// session holds no buffer of its own.
func (g *guard) next(scratch []byte) error {
	if g.mode == modeData {
		g.mode, g.feed = modeCommand, []byte(".\r\n")
		return nil
	}
	deadline := g.lineDeadline()
	for !g.closing {
		line, bad, err := g.line(scratch, deadline)
		if err != nil {
			g.readFailed(err)
			break
		}
		if g.pass(line, bad) {
			return nil
		}
		deadline = g.lineDeadline()
	}
	return errClosing
}

// pass looks at one line and says whether go-smtp gets it; if not, it has been
// answered here.
func (g *guard) pass(line []byte, bad answer) bool {
	if g.mode == modeAuth {
		return g.passAuth(line, bad)
	}
	g.cmd, g.says = command{}, nil
	g.waiting = true
	if bad == ansNone {
		g.cmd, bad = parseCommand(line)
	}
	if bad == ansNone {
		bad = g.inspect()
	}
	if bad != ansNone {
		g.closing = g.closing || bad == ansNotCRLF || g.cmd.verb == verbBdat
		g.emit(bad.reply())
		return false
	}
	if g.cmd.verb == verbStart {
		g.startTLS()
		return false
	}
	g.feed = append(g.cmd.forGoSMTP(line), '\r', '\n')
	return true
}

// passAuth lets a line of the AUTH exchange through. The mode ends with each
// line and comes back with the next 334.
func (g *guard) passAuth(line []byte, bad answer) bool {
	g.mode, g.waiting, g.says = modeCommand, true, nil
	switch bad {
	case ansNone:
		g.feed = append(bytes.Clone(line), '\r', '\n')
		return true
	case ansLineTooLong:
		bad = ansAuthTooLong
	case ansNotCRLF:
		g.closing = true
		g.emit(bad.reply())
		return false
	}
	r := bad.reply()
	g.says, g.feed = &r, []byte("*\r\n") // go-smtp cancels, we say why
	return true
}

// inspect refuses what the state of the session forbids.
func (g *guard) inspect() answer {
	c := &g.cmd
	if bad := g.tally.command(c.verb); bad != ansNone {
		return bad
	}
	switch c.verb {
	case verbEhlo, verbHelo:
		g.greeted, g.helo, g.esmtp = true, c.arg, c.verb == verbEhlo
		return ansNone
	case verbQuit, verbNoop, verbRset:
		return ansNone
	}
	switch {
	case !g.greeted:
		return ansHeloFirst
	case c.verb == verbAuth && g.tls == nil:
		return ansAuthNeedsTLS
	case c.verb == verbStart && g.tls != nil:
		return ansTLSAlready
	case c.verb == verbMail && (c.size < 0 || c.size > g.srv.now().limits.MaxSize):
		return ansTooBig
	}
	return ansNone
}

// startTLS answers STARTTLS and puts TLS under the session, which begins anew.
// Whatever came in plain text after the command ends the session: it may be
// somebody else's (RFC 3207 section 6, CVE-2011-0411).
func (g *guard) startTLS() {
	if g.pos < len(g.in) {
		g.emit(ansTLSPipelined.reply())
		return
	}
	g.emit(ansTLSGo.reply())
	if err := g.flush(); err != nil {
		g.closing = true
		return
	}
	g.in, g.pos, g.greeted, g.helo = nil, 0, false, ""
	if g.session != nil {
		g.session.forget()
	}
	if err := g.handshake(); err != nil {
		g.log.Info("TLS handshake failed", "error", err)
		g.out, g.closing = nil, true
	}
}

// handshake puts TLS over the socket, within the limit for it.
func (g *guard) handshake() error {
	set := g.srv.now()
	limit := time.Duration(set.limits.Handshake)
	ctx, cancel := context.WithTimeout(g.srv.work, limit)
	defer cancel()
	t := tls.Server(g.raw, set.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("shake hands: %w", err)
	}
	g.conn, g.tls = t, t
	return nil
}

// nextTrace names one message of the session in its trace header.
func (g *guard) nextTrace() string {
	g.traces++
	return fmt.Sprintf("%s.%d", g.id, g.traces)
}

// Close sends what is left and ends the session.
func (g *guard) Close() error {
	if g.closed {
		return nil
	}
	g.closed, g.closing = true, true
	g.flush()
	err := g.conn.Close()
	g.srv.leave(g)
	g.logEnd()
	return err
}

// drain asks the session to end: at once where it waits for a new transaction,
// else after this one.
func (g *guard) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if g.idle {
		g.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// kill ends the session without another word.
func (g *guard) kill() { g.raw.Close() }

// The rest of net.Conn. go-smtp's deadlines are not used: ours are set where
// the guard itself reads and writes.

func (g *guard) LocalAddr() net.Addr              { return g.raw.LocalAddr() }
func (g *guard) RemoteAddr() net.Addr             { return g.raw.RemoteAddr() }
func (g *guard) SetDeadline(time.Time) error      { return nil }
func (g *guard) SetReadDeadline(time.Time) error  { return nil }
func (g *guard) SetWriteDeadline(time.Time) error { return nil }
