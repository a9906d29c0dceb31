package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/synward/synward/test/lab"
)

// patience is how long a client waits for a greeting, as one may while the
// relay restarts.
const patience = time.Minute

// traffic is all that goes on while the package is upgraded.
type traffic struct {
	knocks, greetings, later, mails, pings atomic.Int64

	stop   context.CancelFunc
	ends   sync.WaitGroup
	mu     sync.Mutex
	wrongs []error
}

func (t *traffic) String() string {
	return fmt.Sprintf("%d knocks of a stranger, %d greetings and %d times \"come again\" to clients, %d mails, %d words on one connection",
		t.knocks.Load(), t.greetings.Load(), t.later.Load(), t.mails.Load(), t.pings.Load())
}

// begin lets a stranger knock, clients connect and send mail, and one client
// talk all the while to a server of the operator's on port 25.
func begin(s *story, edge, client, stranger *lab.Host) *traffic {
	t := &traffic{}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	s.Cleanup(stop)
	edge.Echo("192.0.2.1:25")
	talk, err := client.Dial("", "192.0.2.1:25", 5*time.Second)
	if err != nil {
		s.Fatalf("reach the operator's own server: %v", err)
	}
	s.Cleanup(func() { talk.Close() })
	t.each(ctx, func() error { return t.knock(stranger) })
	t.each(ctx, func() error { return t.knock(stranger) })
	for range 8 {
		t.each(ctx, func() error { return t.greet(client) })
	}
	t.each(ctx, func() error { return t.mail(client) })
	t.each(ctx, func() error { return t.ping(talk) })
	return t
}

func (t *traffic) each(ctx context.Context, once func() error) {
	t.ends.Go(func() {
		for ctx.Err() == nil {
			if err := once(); err != nil {
				t.mu.Lock()
				t.wrongs = append(t.wrongs, fmt.Errorf("%s %w", time.Now().Format("15:04:05.000"), err))
				t.mu.Unlock()
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// total is how much has happened of what happens least.
func (t *traffic) total() int64 { return min(t.knocks.Load(), t.mails.Load()) }

// await waits until that much has happened, and says what has.
func (t *traffic) await(n int64) string {
	for deadline := time.Now().Add(90 * time.Second); t.total() < n && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	return t.String()
}

// end ends all of it, and returns how many mails were accepted and what went wrong.
func (t *traffic) end() (int, error) {
	t.stop()
	t.ends.Wait()
	if len(t.wrongs) > 10 {
		t.wrongs = append(t.wrongs[:10], fmt.Errorf("and %d more", len(t.wrongs)-10))
	}
	return int(t.mails.Load()), errors.Join(t.wrongs...)
}

// knock is a stranger's attempt: nobody may answer it, by whatever.
func (t *traffic) knock(h *lab.Host) error {
	t.knocks.Add(1)
	c, err := h.Dial("", "198.51.100.1:587", 400*time.Millisecond)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return nil
	}
	if err == nil {
		c.Close()
		return errors.New("a stranger was let in")
	}
	return fmt.Errorf("a stranger was answered: %w", err)
}

// greet is a client's connection: it gets a greeting, sooner or later.
func (t *traffic) greet(h *lab.Host) error {
	c, err := h.Dial("", "192.0.2.1:587", patience)
	if err != nil {
		return fmt.Errorf("a client was refused: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	line, err := textproto.NewConn(c).ReadLine()
	switch {
	case err != nil:
		return fmt.Errorf("a client got no greeting: %w", err)
	case strings.HasPrefix(line, "220 "):
		t.greetings.Add(1)
	case strings.HasPrefix(line, "421 "):
		t.later.Add(1)
	default:
		return fmt.Errorf("a client was greeted with %q", line)
	}
	return nil
}

// mail submits one; being told to come again is no fault, and no mail.
func (t *traffic) mail(h *lab.Host) error {
	err := submit(h)
	var reply *textproto.Error
	switch {
	case err == nil:
		t.mails.Add(1)
	case errors.As(err, &reply) && reply.Code == 421,
		// The 421 of a relay that ends may come while the client writes.
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		t.later.Add(1)
	default:
		return fmt.Errorf("a mail was not taken: %w", err)
	}
	return nil
}

func submit(h *lab.Host) error {
	raw, err := h.Dial("", "192.0.2.1:465", patience)
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	c, err := smtp.NewClient(tls.Client(raw, &tls.Config{InsecureSkipVerify: true}), "edge.example") // its certificate is its own
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", "alice", "a long password", "edge.example")); err != nil {
		return err
	}
	if err := c.Mail("alice@example.net"); err != nil {
		return err
	}
	if err := c.Rcpt("bob@example.org"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "Subject: x\r\n\r\nx\r\n"); err != nil {
		return err
	}
	return w.Close()
}

// ping says a word on the connection that was open before, and hears it back.
func (t *traffic) ping(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return fmt.Errorf("the open connection broke: %w", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return fmt.Errorf("the open connection broke: %w", err)
	}
	t.pings.Add(1)
	return nil
}
