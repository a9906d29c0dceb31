package kill

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	netsmtp "net/smtp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// hop is the next hop: it notes when each id came, and what came damaged.
type hop struct {
	addr netip.AddrPort

	mu    sync.Mutex
	got   map[string][]time.Time
	wrong []string
}

func startHop(t *testing.T) *hop {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hop{got: map[string][]time.Time{}, addr: l.Addr().(*net.TCPAddr).AddrPort()}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return hopSession{h}, nil }))
	s.ErrorLog = log.New(io.Discard, "", 0) // of connections that broke: that is what this is about
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return h
}

type hopSession struct{ h *hop }

func (hopSession) Reset()                               {}
func (hopSession) Logout() error                        { return nil }
func (hopSession) Mail(string, *smtp.MailOptions) error { return nil }
func (hopSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s hopSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err // cut off: not taken
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	_, text, _ := strings.Cut(string(b), "\r\n\r\n")
	id, ok := check(text)
	if !ok {
		s.h.wrong = append(s.h.wrong, text[:min(len(text), 200)])
	}
	s.h.got[id] = append(s.h.got[id], time.Now())
	return nil
}

// letter makes a message of its own, which says itself whether it is whole.
func letter(id string) string {
	text := id + "\r\n" + strings.Repeat("The quick brown fox.\r\n", rand.IntN(400))
	return fmt.Sprintf("%s%08x\r\n", text, crc32.ChecksumIEEE([]byte(text)))
}

func check(text string) (id string, ok bool) {
	id, _, _ = strings.Cut(text, "\r\n")
	if len(text) < 10 {
		return id, false
	}
	body, sum := text[:len(text)-10], text[len(text)-10:]
	return id, sum == fmt.Sprintf("%08x\r\n", crc32.ChecksumIEEE([]byte(body)))
}

// load hands in messages until ctx ends and notes the ids that were accepted.
type load struct {
	addr string

	mu       sync.Mutex
	accepted map[string]bool
	odd      []error // what no crash explains
}

func (l *load) run(ctx context.Context, writers int) {
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				// A session may fail at any point: the relay is killed under it.
				l.session(ctx, fmt.Sprintf("%d.%d", w, i))
			}
		})
	}
	wg.Wait()
}

// session hands in up to twenty messages over one connection.
func (l *load) session(ctx context.Context, name string) {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	c, err := netsmtp.NewClient(conn, "relay.example")
	if err != nil || c.Hello("load.example") != nil {
		return
	}
	for i := 0; i < 20 && ctx.Err() == nil; i++ {
		id := fmt.Sprintf("id-%s.%d", name, i)
		err := send(c, id)
		l.mu.Lock()
		if err == nil {
			l.accepted[id] = true
		} else if refused := (*textError)(nil); errors.As(err, &refused) {
			l.odd = append(l.odd, err)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// textError is a refusal in words, which no crash makes.
type textError struct{ error }

func send(c *netsmtp.Client, id string) error {
	if err := errors.Join(c.Mail("a@load.example"), c.Rcpt("b@sink.example")); err != nil {
		return worded(err)
	}
	w, err := c.Data()
	if err != nil {
		return worded(err)
	}
	if _, err := io.WriteString(w, "Subject: x\r\n\r\n"+letter(id)); err != nil {
		return err
	}
	return worded(w.Close())
}

func worded(err error) error {
	if err != nil && (strings.Contains(err.Error(), "4.") || strings.Contains(err.Error(), "5.")) && !strings.Contains(err.Error(), "127.0.0.1") {
		return &textError{err}
	}
	return err
}
