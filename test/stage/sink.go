package stage

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/synward/synward/test/lab"
)

// Mail is a message that arrived at the next hop.
type Mail struct {
	From string
	To   []string
	Data string
	TLS  bool
	At   time.Time
}

// Sink is the next hop: an SMTP server that keeps what it gets.
type Sink struct {
	host  *lab.Host
	addr  string
	certs certs

	mu    sync.Mutex
	srv   *smtp.Server
	mails []Mail
	come  chan struct{}
}

func startSink(t lab.T, h *lab.Host, addr string, c certs) *Sink {
	s := &Sink{host: h, addr: addr, certs: c, come: make(chan struct{}, 1)}
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// Up opens the next hop, which is open from the start.
func (s *Sink) Up() {
	srv := smtp.NewServer(smtp.BackendFunc(func(conn *smtp.Conn) (smtp.Session, error) {
		return &sinkSession{sink: s, conn: conn}, nil
	}))
	srv.Domain = "hop.example"
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{s.certs.pair}}
	var l net.Listener
	s.host.Do(func() (err error) { l, err = net.Listen("tcp", s.addr); return err })
	go func() { _ = srv.Serve(l) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv = srv
}

// Down closes the next hop: it refuses connections, and drops those it has.
func (s *Sink) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.Close()
}

// Mails are the messages that have arrived so far.
func (s *Sink) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

// Wait waits for the nth message (counted from 1).
func (s *Sink) Wait(n int, patience time.Duration) (Mail, bool) {
	deadline := time.After(patience)
	for {
		if m := s.Mails(); len(m) >= n {
			return m[n-1], true
		}
		select {
		case <-s.come:
		case <-deadline:
			return Mail{}, false
		}
	}
}

type sinkSession struct {
	sink *Sink
	conn *smtp.Conn
	mail Mail
}

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mail = Mail{From: from}
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, s.mail.TLS = s.conn.TLSConnectionState()
	s.mail.Data, s.mail.At = string(body), time.Now()
	s.sink.mu.Lock()
	s.sink.mails = append(s.sink.mails, s.mail)
	s.sink.mu.Unlock()
	select {
	case s.sink.come <- struct{}{}:
	default:
	}
	return nil
}

func (s *sinkSession) Reset()        { s.mail = Mail{} }
func (s *sinkSession) Logout() error { return nil }
