package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The bounds of a line, CRLF included. RFC 5321 asks for 512 bytes and more
// for every extension; RFC 4954 for 12,288 in AUTH.
const (
	maxLine     = 2048
	maxAuthLine = 12288 + 2
	maxSkip     = 1 << 20 // of a line that is too long, before the session ends
)

const (
	writeTimeout = time.Minute
	maxOut       = 16 << 10 // bytes of replies held back under pipelining
)

// line returns the next line without its CRLF, or what is wrong with it. The
// line is valid until the next call.
func (g *guard) line(scratch []byte, deadline time.Time) ([]byte, answer, error) {
	skipped := 0
	for {
		have := g.in[g.pos:]
		end := bytes.IndexByte(have, '\n')
		limit := g.lineLimit(have)
		switch {
		case end < 0 && (skipped > 0 || len(have) >= limit):
			if skipped += len(have); skipped > maxSkip {
				g.closing = true
				return nil, ansLineTooLong, nil
			}
			// Keep a last CR: the LF that makes it a line end may follow.
			g.in, g.pos = append(g.in[:0], lastCR(have)...), 0
		case end < 0:
		case end == 0 || have[end-1] != '\r':
			g.use(end + 1)
			return nil, ansNotCRLF, nil
		case skipped > 0 || end+1 > limit:
			g.use(end + 1)
			return nil, ansLineTooLong, nil
		default:
			g.use(end + 1)
			return have[:end-1], ansNone, nil
		}
		if err := g.fill(scratch, deadline); err != nil {
			return nil, ansNone, err
		}
	}
}

func lastCR(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return b[n-1:]
	}
	return nil
}

func (g *guard) lineLimit(have []byte) int {
	if g.mode == modeAuth || len(have) >= 5 && bytes.EqualFold(have[:5], []byte("AUTH ")) {
		return maxAuthLine
	}
	return maxLine
}

// use marks n bytes of in as used. The bytes stay until the next fill.
func (g *guard) use(n int) { g.pos += n }

// fill sends the replies that are due and reads more into in.
func (g *guard) fill(scratch []byte, deadline time.Time) error {
	if g.pos > 0 {
		g.in = append(g.in[:0], g.in[g.pos:]...)
		g.pos = 0
	}
	if len(g.in) == 0 && cap(g.in) > 512 {
		g.in = nil
	}
	n, err := g.read(scratch, deadline)
	g.in = append(g.in, scratch[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// read sends the replies that are due and reads from the client.
func (g *guard) read(b []byte, deadline time.Time) (int, error) {
	if err := g.flush(); err != nil {
		return 0, err
	}
	between := g.mode == modeCommand && (g.session == nil || !g.session.inMail)
	g.mu.Lock()
	if between && g.draining {
		g.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	g.idle = between
	g.raw.SetReadDeadline(deadline)
	g.mu.Unlock()
	n, err := g.conn.Read(b)
	g.mu.Lock()
	g.idle = false
	g.mu.Unlock()
	return n, err
}

// lineDeadline is when the line that is due now must be complete: dripping it
// byte by byte does not move it.
func (g *guard) lineDeadline() time.Time {
	limits := g.srv.now().limits
	line := time.Now().Add(time.Duration(limits.Command))
	if over := g.tally.since.Add(time.Duration(limits.Session)); over.Before(line) {
		return over
	}
	return line
}

// readFailed tells the client why the session ends, where it can still hear it.
func (g *guard) readFailed(err error) {
	g.closing = true
	if !isTimeout(err) {
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			g.log.Debug("session broke off", "error", err)
		}
		return
	}
	g.mu.Lock()
	draining := g.draining
	g.mu.Unlock()
	g.waiting = true
	switch over := g.tally.since.Add(time.Duration(g.srv.now().limits.Session)); {
	case draining:
		g.emit(ansDraining.reply())
	case !time.Now().Before(over):
		g.emit(ansSessionOver.reply())
	default:
		g.emit(ansIdle.reply())
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Write takes what go-smtp says, reads the code off it and sends our own
// reply. Nothing else of it reaches the client, save an AUTH challenge, which
// is ours.
func (g *guard) Write(p []byte) (int, error) {
	if g.closed {
		return 0, net.ErrClosed
	}
	g.part = append(g.part, p...)
	rest := g.part
	for {
		line, after, ok := bytes.Cut(rest, []byte("\r\n"))
		if !ok {
			break
		}
		if rest = after; len(line) >= 4 && line[3] == ' ' {
			g.answer(line)
		}
	}
	g.part = append(g.part[:0], rest...)
	return len(p), nil
}

// answer turns the last line of go-smtp's reply into ours. One line of the
// client gets one reply: more are not sent.
func (g *guard) answer(line []byte) {
	code, err := strconv.Atoi(string(line[:3]))
	if err != nil || !g.waiting {
		return
	}
	if g.cmd.verb == verbAuth && code == 334 {
		g.mode, g.waiting = modeAuth, false
		g.out = append(append(g.out, line...), '\r', '\n')
		return
	}
	if g.says != nil && (code >= 400 || code == 250) {
		g.emit(*g.says)
		return
	}
	a, known := said[g.cmd.verb][code]
	if !known {
		g.log.Error("go-smtp gave a reply that is not in the table", "verb", string(g.cmd.verb), "code", code)
		g.emit(ansInternal.reply())
		return
	}
	switch a {
	case ansGreeting, ansHelo:
		g.emit(a.reply(g.srv.now().settings.Hostname))
	case ansEhlo:
		g.emit(a.reply(g.srv.now().settings.Hostname), g.extensions()...)
	case ansDataGo:
		g.mode = modeData
		g.out = a.reply().wire(g.out) // DATA itself is answered after the message
	default:
		g.emit(a.reply())
	}
}

// extensions is what EHLO offers. CHUNKING is not: go-smtp takes a BDAT that
// was cut off for a whole message.
func (g *guard) extensions() []string {
	ext := []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN"}
	if g.tls == nil {
		ext = append(ext, "STARTTLS")
	} else {
		ext = append(ext, "AUTH "+strings.Join(g.srv.now().mechanisms(), " "))
	}
	return append(ext, "SIZE "+strconv.FormatInt(g.srv.now().limits.MaxSize, 10))
}

// emit answers the line in hand. A client that has made too many errors gets
// its last reply instead.
func (g *guard) emit(r reply, more ...string) {
	if !g.waiting {
		return
	}
	if last := g.tally.reply(r); last != ansNone {
		r, more = last.reply(), nil
	}
	g.waiting = false
	g.closing = g.closing || r.code == 421 || r.code == 221
	g.out = r.wire(g.out, more...)
	if len(g.out) > maxOut {
		if err := g.flush(); err != nil {
			g.closing = true
		}
	}
}

// flush sends the replies that are due.
func (g *guard) flush() error {
	if len(g.out) == 0 {
		return nil
	}
	g.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := g.conn.Write(g.out)
	if g.out = g.out[:0]; cap(g.out) > 1024 {
		g.out = nil
	}
	return err
}
