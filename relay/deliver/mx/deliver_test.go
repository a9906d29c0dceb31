package mx

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/synward/synward/relay/deliver"
	"github.com/synward/synward/relay/queue"
)

// server is a domain's mail server that a test plays.
type server struct {
	mu   sync.Mutex
	got  []string // recipients
	busy bool     // 451 to all
}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) { return &transaction{s: s}, nil }

type transaction struct {
	s  *server
	to []string
}

func (x *transaction) Mail(string, *smtp.MailOptions) error { return nil }
func (x *transaction) Rcpt(to string, _ *smtp.RcptOptions) error {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.busy {
		return &smtp.SMTPError{Code: 451, Message: "later"}
	}
	x.to = append(x.to, to)
	return nil
}
func (x *transaction) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.got = append(x.s.got, x.to...)
	return nil
}
func (x *transaction) Reset()        { x.to = nil }
func (x *transaction) Logout() error { return nil }

func (s *server) listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(s)
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// The whole way: from the queue by DNS to the servers of several domains.
func TestDeliversByMX(t *testing.T) {
	z := newZone(t, `
a.test. MX 10 dead.a.test.
a.test. MX 20 mx.a.test.
dead.a.test. A 127.0.0.9
mx.a.test. A 127.0.0.2
b.test. MX 5 busy.b.test.
b.test. MX 5 busy.b.test.
b.test. MX 7 mx.a.test.
busy.b.test. A 127.0.0.3
six.test. AAAA ::1
null.test. MX 0 .`)
	z.broken["slow.test."] = true
	main, busy, six := &server{}, &server{busy: true}, &server{}
	_, port, _ := net.SplitHostPort(main.listen(t, "127.0.0.2:0").Addr().String())
	busy.listen(t, "127.0.0.3:"+port)
	six.listen(t, "[::1]:"+port)
	var number int
	fmt.Sscan(port, &number)
	r := router(t, z, func(o *Options) { o.Port, o.AllowLocal = number, true })

	q, err := queue.Open(t.TempDir(), queue.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	outcomes := make(chan deliver.Outcome, 20)
	e := deliver.New(deliver.Options{Queue: q, Observe: func(o deliver.Outcome) { outcomes <- o }})
	e.Configure(deliver.Settings{Router: r, Hostname: "relay.ours.test", Item: deliver.Backoff{First: time.Hour, Max: time.Hour}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	env := queue.Envelope{}
	for _, to := range []string{"1@a.test", "2@a.test", "3@b.test", "4@six.test", "5@null.test", "6@slow.test", "7@absent.test"} {
		env.Rcpts = append(env.Rcpts, queue.Recipient{Addr: to})
	}
	if _, err := q.Add(ctx, env, strings.NewReader("Subject: x\r\n\r\nhello\r\n")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"1@a.test": "delivered mx.a.test[127.0.0.2]", "2@a.test": "delivered mx.a.test[127.0.0.2]",
		"3@b.test": "delivered mx.a.test[127.0.0.2]", "4@six.test": "delivered six.test[::1]",
		"5@null.test": "bounced 556 5.1.10", "6@slow.test": "deferred 451 4.4.3", "7@absent.test": "bounced 550 5.1.2",
	}
	for len(want) > 0 {
		select {
		case o := <-outcomes:
			got := string(o.Kind) + " " + o.Hop
			if o.Hop == "" {
				got = string(o.Kind) + " " + o.Reply
			}
			if w, ok := want[o.Rcpt]; !ok || !strings.HasPrefix(got, w) {
				t.Errorf("%s: %s (%s), want %s", o.Rcpt, got, o.Reply, w)
			}
			delete(want, o.Rcpt)
		case <-time.After(15 * time.Second):
			t.Fatalf("nothing is heard of %v", want)
		}
	}
	if main.count() != 3 || six.count() != 1 || busy.count() != 0 {
		t.Errorf("arrived: %v %v %v", main.got, six.got, busy.got)
	}
}
