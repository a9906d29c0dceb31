package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// timeouts bound each step of a dialogue (RFC 5321 4.5.3.2).
type timeouts struct {
	dial, command, write, final time.Duration
}

func defaultTimeouts() timeouts {
	return timeouts{dial: 30 * time.Second, command: 5 * time.Minute, write: 3 * time.Minute, final: 10 * time.Minute}
}

// conn is a connection to a next hop, greeted, protected and authenticated.
type conn struct {
	hop     Hop
	nc      net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	ext     map[string]string // EHLO keywords in upper case, and their parameters
	to      timeouts
	helo    string  // our name
	told    *sender // whom XCLIENT has named
	used    int
	idle    time.Time
	buf     []byte      // for bodies on their way through
	release func() bool // ends the tie to the context
}

// replyError is a reply that ended something.
type replyError struct {
	what string
	Reply
}

func (e *replyError) Error() string { return e.what + ": " + e.String() }

// dialer opens TCP connections; net.Dialer is one.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// connect opens a connection that is ready for MAIL. It is closed when ctx ends.
func connect(ctx context.Context, d dialer, h Hop, helo string, from sender, to timeouts) (*conn, error) {
	c, err := start(ctx, d, h, helo, from, to, h.TLS != Plain)
	var hs *handshakeError
	if h.TLS == Opportunistic && errors.As(err, &hs) {
		// RFC 7435: some security is better than none, but none is better than no mail.
		return start(ctx, d, h, helo, from, to, false)
	}
	return c, err
}

type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func start(ctx context.Context, d dialer, h Hop, helo string, from sender, to timeouts, useTLS bool) (_ *conn, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, to.dial)
	defer cancel()
	nc, err := d.DialContext(dialCtx, "tcp", h.Address())
	if err != nil {
		return nil, err
	}
	c := &conn{hop: h, helo: helo, to: to, buf: make([]byte, 32<<10)}
	c.release = context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer func() {
		if err != nil {
			c.release()
			_ = nc.Close() // the error that counts is err
		}
	}()
	c.use(nc)
	if h.Forward == ForwardPROXY {
		if _, err := io.WriteString(deadlineWriter{c}, from.proxyHeader()); err != nil {
			return nil, err
		}
	}
	if h.TLS == Implicit {
		if err := c.handshake(ctx); err != nil {
			return nil, err
		}
	}
	if rep, err := c.read(to.command); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	} else if !rep.positive() {
		return nil, &replyError{"greeting", rep}
	}
	if err := c.hello(helo); err != nil {
		return nil, err
	}
	if useTLS && h.TLS != Implicit {
		if err := c.startTLS(ctx, helo); err != nil {
			return nil, err
		}
	}
	return c, c.auth()
}

func (c *conn) use(nc net.Conn) {
	c.nc = nc
	c.r = bufio.NewReaderSize(nc, maxReplyLine)
	c.w = bufio.NewWriterSize(deadlineWriter{c}, 32<<10)
}

// startTLS upgrades where the server offers it; where it does not, that is an
// error unless the mode is opportunistic (RFC 3207).
func (c *conn) startTLS(ctx context.Context, helo string) error {
	if _, ok := c.ext["STARTTLS"]; !ok {
		if c.hop.TLS == Opportunistic {
			return nil
		}
		return errors.New("the server offers no STARTTLS, and tls is required")
	}
	rep, err := c.cmd("STARTTLS")
	if err != nil {
		return err
	}
	if rep.Code != 220 {
		return &handshakeError{&replyError{"STARTTLS", rep}}
	}
	if c.r.Buffered() > 0 {
		return errors.New("the server sent more in plain text after its reply to STARTTLS")
	}
	if err := c.handshake(ctx); err != nil {
		return err
	}
	return c.hello(helo) // what was said before is void
}

func (c *conn) handshake(ctx context.Context) error {
	cfg, err := c.hop.tlsConfig()
	if err != nil {
		return err
	}
	tc := tls.Client(c.nc, cfg)
	ctx, cancel := context.WithTimeout(ctx, c.to.dial)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return &handshakeError{err}
	}
	c.use(tc)
	return nil
}

// hello sends EHLO, or HELO to a server that knows no other.
func (c *conn) hello(name string) error {
	rep, err := c.cmd("EHLO " + name)
	if err != nil {
		return err
	}
	c.ext = map[string]string{}
	if rep.permanent() {
		if rep, err = c.cmd("HELO " + name); err != nil {
			return err
		}
	} else if rep.positive() {
		for _, l := range rep.lines[1:] {
			word, args, _ := strings.Cut(l, " ")
			c.ext[strings.ToUpper(word)] = args
		}
	}
	if !rep.positive() {
		return &replyError{"EHLO", rep}
	}
	return nil
}

// auth logs in where the hop has a user: PLAIN, or LOGIN where that is all
// there is. Never without verified TLS.
func (c *conn) auth() error {
	if c.hop.User == "" {
		return nil
	}
	if _, ok := c.nc.(*tls.Conn); !ok || !c.hop.verified() {
		return errors.New("no password is sent without verified TLS: set tls to required or implicit")
	}
	mechs := " " + strings.ToUpper(c.ext["AUTH"]) + " "
	b64 := base64.StdEncoding.EncodeToString
	var rep Reply
	var err error
	switch {
	case strings.Contains(mechs, " PLAIN "):
		rep, err = c.cmd("AUTH PLAIN " + b64([]byte("\x00"+c.hop.User+"\x00"+c.hop.Password)))
	case strings.Contains(mechs, " LOGIN "):
		rep, err = c.cmd("AUTH LOGIN")
		for _, s := range []string{c.hop.User, c.hop.Password} {
			if err == nil && rep.Code == 334 {
				rep, err = c.cmd(b64([]byte(s)))
			}
		}
	default:
		return fmt.Errorf("the server offers neither AUTH PLAIN nor LOGIN, but %q", c.ext["AUTH"])
	}
	if err != nil {
		return fmt.Errorf("AUTH: %w", err)
	}
	if rep.Code != 235 {
		return &replyError{"AUTH", rep}
	}
	return nil
}

// cmd sends a line and reads its reply. The line is one of ours or checked.
func (c *conn) cmd(line string) (Reply, error) {
	if err := c.send(line); err != nil {
		return Reply{}, err
	}
	if err := c.w.Flush(); err != nil {
		return Reply{}, err
	}
	return c.read(c.to.command)
}

// send puts a command into the buffer.
func (c *conn) send(line string) error {
	if strings.ContainsAny(line, "\r\n\x00") {
		return errors.New("send command: a line break or NUL in it")
	}
	_, err := c.w.WriteString(line + "\r\n")
	return err
}

func (c *conn) read(within time.Duration) (Reply, error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(within)); err != nil {
		return Reply{}, err
	}
	return readReply(c.r)
}

// has says whether the server announced an extension.
func (c *conn) has(ext string) bool { _, ok := c.ext[ext]; return ok }

// maxSize is the server's SIZE limit, 0 for none (RFC 1870).
func (c *conn) maxSize() int64 {
	n, err := strconv.ParseInt(c.ext["SIZE"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// quit says goodbye where that takes no time, and closes.
func (c *conn) quit() {
	c.to.write = time.Second
	if c.send("QUIT") == nil {
		_ = c.w.Flush() // polite only
	}
	c.close()
}

func (c *conn) close() {
	c.release()
	_ = c.nc.Close() // nothing is to be had from its error
}
