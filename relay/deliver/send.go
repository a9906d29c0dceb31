package deliver

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/synward/synward/relay/queue"
)

// answer is what a next hop said about one recipient.
type answer struct {
	rcpt  int
	reply Reply
	dsn   bool // the hop took over the duty to notify (RFC 3461)
}

// ours makes a reply of our own, for what the next hop was not asked.
func ours(code int, enhanced, text string) Reply {
	return Reply{Code: code, Enhanced: enhanced, Text: text}
}

// errStale is a reused connection that turned out to be dead before the next
// hop said anything about the message: nothing can have been delivered.
var errStale = errors.New("the connection was closed while it was idle")

// transaction sends a message to some of its recipients. Every recipient gets
// an answer, unless there is an error: then the connection is of no more use
// and those without an answer may be tried again.
func (c *conn) transaction(it queue.Item, rcpts []int, body io.Reader) ([]answer, error) {
	rcpts, no := c.without8(it, rcpts)
	mail, refusal := c.mailCommand(it, rcpts)
	if refusal.Code != 0 {
		return append(no, all(rcpts, refusal)...), nil
	}
	if len(rcpts) == 0 {
		return no, nil
	}
	done, err := c.begin(it, mail, rcpts, body)
	return append(no, done...), err
}

// without8 takes those out who cannot be named to the next hop; the others need
// not suffer for them.
func (c *conn) without8(it queue.Item, rcpts []int) (left []int, no []answer) {
	if c.has("SMTPUTF8") {
		return rcpts, nil
	}
	for _, i := range rcpts {
		if isASCII(it.Rcpts[i].Addr) {
			left = append(left, i)
		} else {
			no = append(no, answer{rcpt: i, reply: noUTF8})
		}
	}
	return left, no
}

var noUTF8 = ours(553, "5.6.7", "the next hop does not take internationalized mail (SMTPUTF8)")

// begin is the part of a transaction from MAIL on.
func (c *conn) begin(it queue.Item, mail string, rcpts []int, body io.Reader) ([]answer, error) {
	if err := c.introduce(senderOf(it)); err != nil {
		return nil, err
	}
	lines := []string{mail}
	for _, i := range rcpts {
		lines = append(lines, c.rcptCommand(it.Rcpts[i]))
	}
	lines = append(lines, "DATA")
	t := &dialogue{c: c, lines: lines, pipelined: c.has("PIPELINING")}
	c.used++
	first, err := t.next()
	if err != nil || first.Code == 421 {
		if c.used > 1 {
			return nil, errStale
		}
		if err == nil {
			err = &replyError{"MAIL", first}
		}
		return nil, err
	}
	if !first.positive() {
		return all(rcpts, first), t.abandon()
	}
	return c.recipients(t, rcpts, body, it.EightBit && !c.has("8BITMIME"))
}

// recipients is the part of a transaction from RCPT on.
func (c *conn) recipients(t *dialogue, rcpts []int, body io.Reader, sevenBit bool) (done []answer, err error) {
	var accepted []int
	for _, i := range rcpts {
		rep, err := t.next()
		if err != nil {
			return done, err
		}
		if rep.positive() {
			accepted = append(accepted, i)
		} else {
			done = append(done, answer{rcpt: i, reply: rep})
		}
	}
	if len(accepted) == 0 {
		return done, t.abandon()
	}
	rep, err := t.next()
	if err != nil {
		return done, err
	}
	if rep.Code != 354 {
		if rep.positive() {
			return done, fmt.Errorf("DATA: %w: %s", errReply, rep)
		}
		return append(done, all(accepted, rep)...), nil
	}
	final, err := c.data(body, sevenBit)
	switch { // where err stays set the caller closes the connection
	case errors.Is(err, errUnclean):
		final = ours(554, "5.6.0", err.Error())
	case errors.Is(err, errEightBit):
		final = ours(554, "5.6.3", err.Error())
	case err != nil:
		return done, err
	}
	for _, a := range all(accepted, final) {
		a.dsn = c.has("DSN")
		done = append(done, a)
	}
	return done, err
}

// data sends the body and returns the final reply.
func (c *conn) data(body io.Reader, sevenBit bool) (Reply, error) {
	err := copyDots(c.w, body, c.buf, sevenBit)
	if errors.Is(err, errUnclean) || errors.Is(err, errEightBit) || errors.Is(err, queue.ErrCorrupt) {
		return Reply{}, err // no final dot: the caller closes, and nothing was delivered
	}
	if err == nil {
		_, err = c.w.WriteString(".\r\n")
	}
	if err == nil {
		err = c.w.Flush()
	}
	if err != nil {
		// A server that has had enough says why before it closes.
		if rep, rerr := c.read(time.Second); rerr == nil && !rep.positive() {
			return rep, nil
		}
		return Reply{}, fmt.Errorf("send message: %w", err)
	}
	rep, err := c.read(c.to.final)
	if err != nil {
		return Reply{}, fmt.Errorf("the connection broke after the message was sent, it may arrive twice: %w", err)
	}
	if rep.Code/100 == 3 {
		return Reply{}, fmt.Errorf("end of message: %w: %s", errReply, rep)
	}
	return rep, nil
}

// deadlineWriter gives each write its own time.
type deadlineWriter struct{ c *conn }

func (d deadlineWriter) Write(b []byte) (int, error) {
	if err := d.c.nc.SetWriteDeadline(time.Now().Add(d.c.to.write)); err != nil {
		return 0, err
	}
	return d.c.nc.Write(b)
}

func all(rcpts []int, rep Reply) []answer {
	list := make([]answer, len(rcpts))
	for i, r := range rcpts {
		list[i] = answer{rcpt: r, reply: rep}
	}
	return list
}

// dialogue sends lines and reads their replies, all at once where the server
// can take that (RFC 2920). Its batches are small enough never to fill both
// directions of a connection.
type dialogue struct {
	c         *conn
	lines     []string
	pipelined bool
	sent      int
	read      int
}

func (d *dialogue) next() (Reply, error) {
	for d.sent < len(d.lines) && (d.pipelined || d.sent == d.read) {
		if err := d.c.send(d.lines[d.sent]); err != nil {
			return Reply{}, err
		}
		d.sent++
	}
	if d.c.w.Buffered() > 0 {
		if err := d.c.w.Flush(); err != nil {
			return Reply{}, err
		}
	}
	d.read++
	return d.c.read(d.c.to.command)
}

var errAbandoned = errors.New("the transaction was given up")

// abandon leaves a transaction that no recipient is left in. Where DATA was
// sent already, a server that took it waits for a message: closing is the one
// way to be sure that it gets none.
func (d *dialogue) abandon() error {
	if d.sent == len(d.lines) {
		for d.read < d.sent-1 {
			if _, err := d.next(); err != nil {
				return err
			}
		}
		rep, err := d.next()
		if err != nil {
			return err
		}
		if rep.Code == 354 {
			return errAbandoned
		}
	}
	rep, err := d.c.cmd("RSET")
	if err == nil && !rep.positive() {
		err = &replyError{"RSET", rep}
	}
	return err
}

// mailCommand makes the MAIL line, or the refusal that the next hop would owe.
func (c *conn) mailCommand(it queue.Item, rcpts []int) (string, Reply) {
	if limit := c.maxSize(); limit > 0 && it.Size > limit {
		return "", ours(552, "5.3.4", fmt.Sprintf("message of %d octets is larger than the %d that the next hop takes", it.Size, limit))
	}
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + it.From + ">")
	if c.has("SIZE") {
		fmt.Fprintf(&b, " SIZE=%d", it.Size)
	}
	if it.EightBit && c.has("8BITMIME") {
		b.WriteString(" BODY=8BITMIME")
	}
	// Asked for only where this transaction needs it: not every server takes it.
	utf8 := it.UTF8 || !isASCII(it.From)
	for _, i := range rcpts {
		utf8 = utf8 || !isASCII(it.Rcpts[i].Addr)
	}
	switch {
	case utf8 && c.has("SMTPUTF8"):
		b.WriteString(" SMTPUTF8")
	case utf8:
		return "", noUTF8
	}
	if c.has("DSN") {
		if it.Ret != "" {
			b.WriteString(" RET=" + it.Ret)
		}
		if it.EnvID != "" {
			b.WriteString(" ENVID=" + xtext(it.EnvID))
		}
	}
	return b.String(), Reply{}
}

func (c *conn) rcptCommand(r queue.Recipient) string {
	s := "RCPT TO:<" + r.Addr + ">"
	if c.has("DSN") {
		if len(r.Notify) > 0 {
			s += " NOTIFY=" + strings.Join(r.Notify, ",")
		}
		if kind, addr, ok := strings.Cut(r.ORcpt, ";"); ok {
			s += " ORCPT=" + kind + ";" + xtext(addr)
		}
	}
	return s
}

// xtext encodes a parameter (RFC 3461 4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
