package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Options say what to run and how.
type Options struct {
	Command   string   // path of the binary
	Args      []string // after the program's name
	Env       []string // the whole environment
	User      string   // whom it runs as; not root
	Socket    string   // path of the admin socket, the child's descriptor 3
	Listeners []Listener
	Dir       string // a directory of the child's own, made 0700; empty = none
	Grace     time.Duration
	Stderr    *os.File // for the child's output; nil = none
	Keeper    Keeper   // has the listeners while no agent runs; nil = nobody

	// Settings gives the document that is PUT to the child.
	Settings func(context.Context) ([]byte, error)
	Log      *slog.Logger
}

// Keeper holds sockets over a restart of the agent, by name.
type Keeper interface {
	Kept(name string) *os.File // nil = none; it is the caller's from then on
	Keep(name string, f *os.File) error
	Forget() error // what was kept and nobody has asked for
}

// State is how the child fares.
type State struct {
	Running  bool      `json:"running"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Adopted  bool      `json:"adopted,omitempty"` // started by an earlier agent
	Restarts int       `json:"restarts"`
	Error    string    `json:"error,omitempty"` // why it does not run, or not as it should
}

// Supervisor keeps the child running.
type Supervisor struct {
	o        Options
	uid, gid uint32
	print    string
	http     *http.Client

	mu     sync.Mutex // guards what follows
	state  State
	files  []*os.File // nil while an adopted child has the only ones
	orphan *record

	pushing sync.Mutex // one PUT at a time, so that the last one wins
}

// New prepares the child's place. Its errors are those an operator can mend: a
// missing user or binary, a port that is taken.
func New(o Options) (*Supervisor, error) {
	s := &Supervisor{o: o}
	var err error
	if s.uid, s.gid, err = lookup(o.User); err != nil {
		return nil, err
	}
	if s.print, err = fingerprint(o, s.uid, s.gid); err != nil {
		return nil, err
	}
	if err := reachable(o.Command, o.User, s.uid, s.gid); err != nil {
		return nil, err
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	var d net.Dialer
	s.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", o.Socket)
		},
	}}
	if err := s.takeOver(); err != nil {
		return nil, err
	}
	if s.orphan == nil {
		if s.files, err = bind(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// lookup finds the user, who must exist and must not be root.
func lookup(name string) (uid, gid uint32, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("relay.user: no user %q; create it with: useradd --system --no-create-home --shell /usr/sbin/nologin %s", name, name)
	}
	id, err1 := strconv.ParseUint(u.Uid, 10, 32)
	g, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("look up user %s: %w", name, err)
	}
	if id == 0 {
		return 0, 0, fmt.Errorf("relay.user: %q is root; name an unprivileged user", name)
	}
	return uint32(id), uint32(g), nil
}

func (s *Supervisor) makeDir() error {
	if s.o.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.o.Dir), 0o755); err != nil {
		return fmt.Errorf("make spool: %w", err)
	}
	if err := os.Mkdir(s.o.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make spool: %w", err)
	}
	// Lchown: a link that stands there instead must not give its target away.
	if err := os.Lchown(s.o.Dir, int(s.uid), int(s.gid)); err != nil {
		return fmt.Errorf("give spool to %s: %w", s.o.User, without(err, "CAP_CHOWN"))
	}
	return nil
}

// takeOver looks for the child of an earlier agent: one that was started as
// this agent would is kept; another is ended.
func (s *Supervisor) takeOver() error {
	r, ok := readRecord(s.o.Socket)
	if !ok {
		return nil
	}
	if r.Print == s.print {
		s.orphan = &r
		return nil
	}
	s.o.Log.Info("replacing the relay of an earlier agent, which was started otherwise", "pid", r.PID)
	p, err := watch(r)
	if err != nil {
		return nil // it has just ended
	}
	return p.stop(s.o.Grace)
}

// UID is the user that the child runs as.
func (s *Supervisor) UID() uint32 { return s.uid }

// State is how the child fares now.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Transport reaches the child's admin socket whatever host a URL names.
func (s *Supervisor) Transport() http.RoundTripper { return s.http.Transport }

// Run keeps the child running until the context ends, then stops it (nil).
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.Close()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 30*time.Second
	for {
		p, err := s.begin()
		began := time.Now()
		if err == nil {
			err = s.attend(ctx, p)
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		s.set(func(st *State) { *st = State{Restarts: st.Restarts + 1, Error: err.Error()} })
		s.o.Log.Error("the relay is not running; starting it again", "error", err, "after", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Close lets go of the listeners. Run does so itself.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeAll(s.files)
	s.files = nil
	return nil
}

// begin adopts the orphan or starts a child, and notes it.
func (s *Supervisor) begin() (*process, error) {
	if r := s.orphan; r != nil {
		s.orphan = nil
		if p, err := watch(*r); err == nil {
			s.o.Log.Info("the relay of an earlier agent goes on", "pid", r.PID)
			s.set(func(st *State) { *st = State{Running: true, PID: r.PID, Since: time.Now(), Adopted: true} })
			return p, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		files, err := bind(s.o)
		if err != nil {
			return nil, err
		}
		s.files = files
	}
	if err := listen(s.files, s.o.Listeners); err != nil {
		closeAll(s.files) // bound but not listening, it only keeps the port from others
		s.files = nil
		return nil, err
	}
	if err := keep(s.o.Keeper, s.files, s.o.Listeners); err != nil {
		s.o.Log.Warn("a restart of the agent will refuse connections for a moment", "error", err)
	}
	p, err := start(s.o, s.uid, s.gid, s.files)
	if err != nil {
		return nil, err
	}
	s.state = State{Running: true, PID: p.pid, Since: time.Now(), Restarts: s.state.Restarts}
	ticks, err := startTime(p.pid)
	if err == nil {
		err = writeRecord(s.o.Socket, record{PID: p.pid, Start: ticks, Print: s.print})
	}
	if err != nil {
		// Without a record only a later agent suffers: it finds the port taken.
		s.o.Log.Warn("the relay will not be found by the next agent", "error", err)
	}
	s.o.Log.Info("relay started", "pid", p.pid, "user", s.o.User)
	return p, nil
}

// attend hands the settings to the child and waits for its end. With the
// context's end it stops the child.
func (s *Supervisor) attend(ctx context.Context, p *process) error {
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		if err := s.Push(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("the relay has no settings and takes no mail", "error", err)
		}
	}()
	defer func() { <-pushed }()
	select {
	case <-p.done:
		return fmt.Errorf("relay %d: %s", p.pid, p.how)
	case <-ctx.Done():
	}
	s.o.Log.Info("stopping the relay", "pid", p.pid)
	if err := p.stop(s.o.Grace); err != nil {
		s.o.Log.Error("the relay goes on; the next agent takes it over", "error", err)
		return ctx.Err()
	}
	os.Remove(recordPath(s.o.Socket))
	os.Remove(s.o.Socket)
	return ctx.Err()
}

func (s *Supervisor) set(f func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}
