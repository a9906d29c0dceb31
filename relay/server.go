package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"
)

// Listener is one bound socket and what is spoken on it.
type Listener struct {
	Net  net.Listener
	Port uint16
	TLS  string // TLSStartTLS or TLSImplicit
}

// Options are what a Server is made of.
type Options struct {
	Listeners []Listener
	Queue     Queue
	Events    *Events
	Log       *slog.Logger
	// Reconfigure, where it is set, is told new settings before they are in
	// force, and may refuse them.
	Reconfigure func(Settings) error
	// Quotas counts what users and relaying sources hand in; nil: nothing does.
	Quotas Quotas
	// Secret makes up the salts that SCRAM shows for names without a credential.
	// It should outlive the process, or a restart would tell which those are.
	// Empty: a random one.
	Secret []byte
	// Certificates has the certificate where Settings ask for ACME; nil: none.
	Certificates Certificates
	// DrainTime is how long sessions may go on after Run's context ends; 0: 20 s.
	DrainTime time.Duration
}

// Server is the SMTP front.
type Server struct {
	opt     Options
	queue   Queue
	events  *Events
	log     *slog.Logger
	logins  *logins
	secret  []byte
	smtp    *smtp.Server
	hand    *handover
	buffers sync.Pool
	began   time.Time
	count   counters
	denials *denials

	work    context.Context // of the sessions: outlives Run's by the drain
	endWork context.CancelFunc

	applying sync.Mutex
	own      *tls.Certificate // self-signed, made once
	ownName  string
	state    atomic.Pointer[compiled]
	ready    chan struct{} // closed when the first settings are in force

	mu      sync.Mutex
	guards  map[*guard]struct{}
	sources map[netip.Prefix]int
	ending  bool
}

type counters struct {
	sessions, accepted, refused, authFailures, unauthorized atomic.Uint64
}

const (
	defaultDrain = 20 * time.Second
	bufferSize   = 32 << 10
	busyTimeout  = 2 * time.Second // to tell a connection that it is one too many
)

// New returns a server that waits for its first Apply.
func New(o Options) *Server {
	o.DrainTime = orDefault(o.DrainTime, defaultDrain)
	if o.Certificates == nil {
		o.Certificates = noCertificates{}
	}
	s := &Server{
		opt: o, queue: o.Queue, events: o.Events, log: o.Log.With("component", "relay"),
		logins: newLogins(time.Now), denials: newDenials(maxDenied), began: time.Now(), hand: newHandover(),
		ready: make(chan struct{}), guards: map[*guard]struct{}{}, sources: map[netip.Prefix]int{},
	}
	if s.secret = o.Secret; len(s.secret) == 0 {
		s.secret = []byte(rand.Text())
	}
	s.buffers.New = func() any { b := make([]byte, bufferSize); return &b }
	s.work, s.endWork = context.WithCancel(context.Background())
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.smtp.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	// The guard has these in hand: TLS and the right to AUTH, line lengths,
	// sizes, recipients and time.
	s.smtp.AllowInsecureAuth = true
	s.smtp.MaxLineLength = 0
	s.smtp.EnableSMTPUTF8, s.smtp.EnableDSN = true, true
	return s
}

// Apply puts settings in force for the sessions there are and those to come.
// They count as a whole: where one is bad, nothing changes.
func (s *Server) Apply(set Settings) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	c, err := set.compile()
	if err != nil {
		return err
	}
	cert := c.cert
	if cert == nil {
		if cert, err = s.ownCert(set.Hostname); err != nil {
			return err
		}
	}
	c.tls = serverTLS(s.certs(set), cert)
	if s.opt.Reconfigure != nil {
		if err := s.opt.Reconfigure(set); err != nil {
			return err
		}
	}
	s.opt.Certificates.Configure(set.ACME)
	if s.state.Swap(c) == nil {
		close(s.ready)
	}
	s.log.Info("settings in force", "hash", c.hash, "accounts", len(c.accounts), "smarthosts", len(set.Smarthosts), "self_signed", s.selfSigned(c))
	return nil
}

// selfSigned says whether the certificate that is shown is our own.
func (s *Server) selfSigned(c *compiled) bool {
	return c.cert == nil && s.certs(c.settings).Certificate() == nil
}

// certs is where a certificate may come from under these settings, other than
// from themselves.
func (s *Server) certs(set Settings) Certificates {
	if set.ACME == nil {
		return noCertificates{}
	}
	return s.opt.Certificates
}

// ownCert is the self-signed certificate for where none is given. It stays the
// same over reloads, as clients may have pinned it.
func (s *Server) ownCert(name string) (*tls.Certificate, error) {
	if s.own != nil && s.ownName == name {
		return s.own, nil
	}
	cert, err := selfSigned(name, time.Now())
	if err == nil {
		s.own, s.ownName = cert, name
	}
	return cert, err
}

// Run serves until ctx ends, then drains: no new sessions, 421 to the idle
// ones, the others may finish within DrainTime. It returns nil then.
func (s *Server) Run(ctx context.Context) error {
	defer s.endWork()
	select {
	case <-s.ready:
	case <-ctx.Done():
		s.closeListeners()
		return nil
	}
	served := make(chan error, 1)
	go func() { served <- s.smtp.Serve(s.hand) }()
	accepting, _ := errgroup.WithContext(ctx)
	for _, l := range s.opt.Listeners {
		accepting.Go(func() error { return s.accept(ctx, l) })
	}
	failed := make(chan error, 1)
	go func() { failed <- accepting.Wait() }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.closeListeners()
	s.drain()
	s.hand.Close() // ends Serve; smtp.Close would touch sessions behind their back
	<-served
	return err
}

func (s *Server) closeListeners() {
	for _, l := range s.opt.Listeners {
		l.Net.Close()
	}
}

// accept takes the connections of one listener.
func (s *Server) accept(ctx context.Context, l Listener) error {
	for wait := 5 * time.Millisecond; ; {
		conn, err := l.Net.Accept()
		switch {
		case err == nil:
			wait = 5 * time.Millisecond
			s.open(l, conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on port %d: %w", l.Port, err)
		default: // out of descriptors, most likely: later there will be some
			s.log.Warn("accept failed", "port", l.Port, "error", err, "wait", wait)
			if sleep(ctx, wait) != nil {
				return nil
			}
			wait = min(2*wait, time.Second)
		}
	}
}

// open makes a session of a connection, or turns it away.
func (s *Server) open(l Listener, conn net.Conn) {
	g := &guard{srv: s, port: l.Port, implicit: l.TLS == TLSImplicit, id: newSessionID(), raw: conn, conn: conn}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		g.source = a.AddrPort().Addr().Unmap()
	}
	g.log = s.log.With("session", g.id, "source", g.source.String(), "port", l.Port)
	g.tally.began = time.Now()
	g.tally.since = g.tally.began
	g.waiting = true // for the greeting
	if busy := s.enter(g); busy != ansNone {
		g.log.Warn("turned away", "reply", busy.reply().String())
		go turnAway(g, busy)
		return
	}
	if !g.implicit {
		s.hand.give(g)
		return
	}
	// The handshake has a goroutine and a limit of its own, so that it holds up
	// neither the listener nor, once it is done, the memory that it took.
	go func() {
		if err := g.handshake(); err != nil {
			g.log.Info("TLS handshake failed", "error", err)
			g.Close()
			return
		}
		s.hand.give(g)
	}()
}

// turnAway says why, where that can be said in plain text, and hangs up.
func turnAway(g *guard, busy answer) {
	if !g.implicit {
		g.raw.SetWriteDeadline(time.Now().Add(busyTimeout))
		g.raw.Write(busy.reply().wire(nil))
	}
	g.raw.Close()
}

// enter counts the session in, or says why there is no room for it.
func (s *Server) enter(g *guard) answer {
	limits, key := s.now().limits, sourceKey(g.source)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending:
		return ansDraining
	case len(s.guards) >= limits.Sessions:
		return ansBusy
	case s.sources[key] >= limits.SessionsPerSource:
		return ansBusySource
	}
	s.guards[g] = struct{}{}
	s.sources[key]++
	s.count.sessions.Add(1)
	return ansNone
}

// leave counts the session out.
func (s *Server) leave(g *guard) {
	key := sourceKey(g.source)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.guards[g]; !ok {
		return
	}
	delete(s.guards, g)
	if s.sources[key]--; s.sources[key] <= 0 {
		delete(s.sources, key)
	}
}

// drain lets the sessions end; whose time is over is cut off.
func (s *Server) drain() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.each((*guard).drain)
	end := time.Now().Add(s.opt.DrainTime)
	for s.openSessions() > 0 && time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
	}
	s.endWork()
	s.each((*guard).kill)
	for end = time.Now().Add(2 * time.Second); s.openSessions() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *Server) each(f func(*guard)) {
	s.mu.Lock()
	all := make([]*guard, 0, len(s.guards))
	for g := range s.guards {
		all = append(all, g)
	}
	s.mu.Unlock()
	for _, g := range all {
		f(g)
	}
}

// now is the settings in force. It is not nil once a session can exist.
func (s *Server) now() *compiled { return s.state.Load() }

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	g, ok := c.Conn().(*guard)
	if !ok {
		return nil, os.ErrInvalid
	}
	g.session = &session{g: g}
	return g.session, nil
}
