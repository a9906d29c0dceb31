package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// source is where body reads from; the guard is one.
type source interface {
	read(b []byte, deadline time.Time) (int, error)
}

// The errors of a body. All but errCut leave the session in step: the rest of
// the message can be read and thrown away.
var (
	errTooBig  = errors.New("message is too big")
	errContent = errors.New("message has a bare CR, a bare LF or a NUL")
	errCut     = errors.New("message did not arrive whole")
)

// A message must keep up minRate bytes/s on average after the first grace, so
// that a drip does not hold a session for ever.
const (
	bodyGrace = 5 * time.Minute
	minRate   = 1 << 10
)

// body reads one message off the wire: it ends at <CRLF>.<CRLF> and nowhere
// else, takes the stuffed dots out, and refuses bare CR, bare LF and NUL, which
// the next hop might take for something else (SMTP smuggling). It scans whole
// blocks; go-smtp's own reader goes byte by byte and so costs most of the CPU.
type body struct {
	src    source
	buf    []byte
	r, w   int    // what of buf is read and not used
	ready  []byte // of the message, in buf before r
	limit  int64  // bytes of the message, dots taken out
	n      int64
	block  time.Duration // for each read
	begun  time.Time
	wire   int64 // bytes read from the wire
	atLine bool  // the next byte begins a line
	skip   bool  // the message is refused: look for its end only
	done   bool  // the end has been seen
	err    error // sticky
}

// newBody reads a message from src, of which head has been read already, using
// buf as its memory. A read that brings nothing for block ends it.
func newBody(src source, head, buf []byte, limit int64, block time.Duration) *body {
	if len(head) >= len(buf) {
		buf = make([]byte, len(head)+len(buf))
	}
	return &body{src: src, buf: buf, w: copy(buf, head), limit: limit, block: block, begun: time.Now(), atLine: true}
}

// Read returns the message, then io.EOF; or one of the errors above.
func (b *body) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(b.ready) > 0 {
			k := copy(p[n:], b.ready)
			b.ready = b.ready[k:]
			n += k
			continue
		}
		if b.err != nil || b.done || n > 0 && b.r == b.w {
			break
		}
		b.ready = b.next()
		if b.n += int64(len(b.ready)); b.n > b.limit {
			b.err, b.ready = errTooBig, nil
		}
	}
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	return 0, io.EOF
}

// drain reads on to the end of a message that is refused, so that the client
// hears why and the session stays in step. It fails where the end does not
// come within grace or within twice the bytes that a message may have.
func (b *body) drain(grace time.Duration) error {
	if errors.Is(b.err, errCut) {
		return b.err
	}
	b.ready, b.err, b.skip = nil, nil, true
	b.begun, b.wire = time.Now().Add(grace-bodyGrace), 0
	for !b.done && b.err == nil {
		if b.wire > 2*b.limit {
			b.err = fmt.Errorf("%w: no end after %d bytes", errCut, b.wire)
		}
		b.next()
	}
	return b.err
}

// rest is what has been read beyond the end of the message.
func (b *body) rest() []byte { return b.buf[b.r:b.w] }

// next returns the next stretch of the message, within one line. An empty one
// means: look at done and err, and come again.
func (b *body) next() []byte {
	have := b.buf[b.r:b.w]
	if b.atLine && len(have) > 0 && have[0] == '.' {
		switch {
		case bytes.HasPrefix(have, []byte(".\r\n")):
			b.r += 3
			b.done = true
			return nil
		case len(have) < 3 && bytes.HasPrefix([]byte(".\r\n"), have):
			b.fill()
			return nil
		}
		b.r++ // a stuffed dot
		b.atLine = false
		have = have[1:]
	}
	seg := have[:bytes.IndexByte(have, '\n')+1]
	whole := len(seg) > 0
	if !whole {
		// A CR at the end waits for its LF.
		if seg = bytes.TrimSuffix(have, []byte("\r")); len(seg) == 0 {
			b.fill()
			return nil
		}
	}
	if !b.skip && !clean(seg, whole) {
		b.err = errContent
		return nil
	}
	b.r += len(seg)
	b.atLine = bytes.HasSuffix(seg, []byte("\r\n"))
	return seg
}

// clean says whether seg holds neither NUL nor a CR or LF that is not part of
// the CRLF at its end (which whole promises an LF of).
func clean(seg []byte, whole bool) bool {
	if whole {
		if len(seg) < 2 || seg[len(seg)-2] != '\r' {
			return false
		}
		seg = seg[:len(seg)-2]
	}
	return bytes.IndexByte(seg, '\r') < 0 && bytes.IndexByte(seg, 0) < 0
}

// fill reads more. Whatever goes wrong there ends the session: what follows on
// the wire would be the rest of the message, taken for commands.
func (b *body) fill() {
	if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	deadline := time.Now().Add(b.block)
	if all := b.begun.Add(bodyGrace + time.Duration(b.wire/minRate)*time.Second); all.Before(deadline) {
		deadline = all
	}
	n, err := b.src.read(b.buf[b.w:], deadline)
	b.w += n
	b.wire += int64(n)
	if n == 0 {
		b.err = fmt.Errorf("%w: %w", errCut, err)
	}
}
