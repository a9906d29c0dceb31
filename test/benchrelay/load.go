package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	login    = "alice@bench.example"
	password = "correct horse battery staple"
)

// client is a session that has logged in, or is of a source that need not.
type client struct {
	c net.Conn
	r *bufio.Reader
	b bytes.Buffer

	pipelining bool // the server offers it
}

func dial(ctx context.Context, addr string, roots *tls.Config) (*client, error) {
	var d interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	} = &net.Dialer{Timeout: 30 * time.Second}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
	hello := [][2]string{{"EHLO load.bench.example", "250"}}
	if roots != nil {
		d = &tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: roots}
		hello = append(hello, [2]string{"AUTH PLAIN " + plain, "235"})
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	cl := &client{c: c, r: bufio.NewReaderSize(c, 2<<10)}
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := cl.want("220"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for _, l := range hello {
		if _, err = c.Write([]byte(l[0] + "\r\n")); err == nil {
			err = cl.want(l[1])
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return cl, nil
}

// want reads a reply that must begin with code.
func (c *client) want(code string) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte(code)) || len(line) < 4 {
			return fmt.Errorf("want %s, got %q", code, line)
		}
		c.pipelining = c.pipelining || bytes.HasPrefix(line[4:], []byte("PIPELINING"))
		if line[3] != '-' {
			return nil
		}
	}
}

var envelope = []string{"MAIL FROM:<" + login + ">\r\n", "RCPT TO:<bob@sink.example>\r\n", "DATA\r\n"}

// send sends one message and returns how long its final 250 took.
func (c *client) send(number int64, body []byte, pipeline bool) (time.Duration, error) {
	c.c.SetDeadline(time.Now().Add(time.Minute))
	pipeline = pipeline && c.pipelining // OpenSMTPD 6.8 is one that does not
	if pipeline {
		if _, err := c.c.Write([]byte(strings.Join(envelope, ""))); err != nil {
			return 0, err
		}
	}
	for i, l := range envelope {
		if !pipeline {
			if _, err := c.c.Write([]byte(l)); err != nil {
				return 0, err
			}
		}
		if err := c.want([]string{"250", "250", "354"}[i]); err != nil {
			return 0, err
		}
	}
	c.b.Reset()
	fmt.Fprintf(&c.b, "From: <%s>\r\nTo: <bob@sink.example>\r\nSubject: bench\r\nDate: Mon, 02 Jan 2026 15:04:05 +0000\r\nMessage-ID: <%d@bench.example>\r\n%s%d\r\n\r\n", login, number, mark, number)
	c.b.Write(body)
	c.b.WriteString(".\r\n")
	begun := time.Now()
	if _, err := c.c.Write(c.b.Bytes()); err != nil {
		return 0, err
	}
	err := c.want("250")
	return time.Since(begun), err
}

func (c *client) quit() {
	c.c.Write([]byte("QUIT\r\n"))
	c.c.Close()
}

// text is a message's body of about size octets.
func text(size int) []byte {
	const line = "the quick brown fox jumps over the lazy dog, 0123456789 abcdefghij\r\n"
	return []byte(strings.Repeat(line, max(1, (size-200)/len(line))))
}

// result is what one load brought.
type result struct {
	Accepted  float64 `json:"accepted_per_s"`
	Delivered float64 `json:"delivered_per_s"`
	CPU       float64 `json:"cpu_s_per_1000"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Messages  int     `json:"messages"`
	Lost      int     `json:"lost"`
	Twice     int     `json:"twice"`
}

func (r result) String() string {
	return fmt.Sprintf("%8.0f accepted/s %8.0f delivered/s %8.3f CPU s/1,000  p50 %.2f  p99 %.2f ms  (%d sent, %d lost, %d twice)",
		r.Accepted, r.Delivered, r.CPU, r.P50, r.P99, r.Messages, r.Lost, r.Twice)
}

// load is the clients at work.
type load struct {
	env  *stage
	addr string
	sc   scenario
	pipe bool
	end  time.Time
	sent atomic.Int64

	dialling sync.Mutex

	mu      sync.Mutex
	waits   []time.Duration
	failure error
}

func (l *load) run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range l.sc.Sessions {
		wg.Go(func() {
			waits, err := l.session(ctx)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.waits = append(l.waits, waits...)
			if l.failure == nil {
				l.failure = err
			}
		})
	}
	wg.Wait()
	return l.failure
}

// dial is dial; without TLS one after the other: OpenSMTPD's backlog is of five.
func (l *load) dial(ctx context.Context) (*client, error) {
	if l.sc.Plain {
		l.dialling.Lock()
		defer l.dialling.Unlock()
	}
	return dial(ctx, l.addr, l.env.tls(l.sc.Plain))
}

func (l *load) session(ctx context.Context) (waits []time.Duration, err error) {
	body := text(l.sc.Size)
	for time.Now().Before(l.end) {
		c, err := l.dial(ctx)
		if err != nil {
			return waits, err
		}
		for n := 0; (l.sc.PerConn == 0 || n < l.sc.PerConn) && time.Now().Before(l.end); n++ {
			wait, err := c.send(l.env.number.Add(1), body, l.pipe)
			if err != nil {
				c.c.Close()
				return waits, err
			}
			l.sent.Add(1)
			waits = append(waits, wait)
		}
		c.quit()
	}
	return waits, nil
}
