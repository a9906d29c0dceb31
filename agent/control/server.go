package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/synward/synward/agent/unixsock"
)

// maxBody bounds a request's body: a policy of a million lines fits.
const maxBody = 256 << 20

// Handler answers one request: with a value that is sent as JSON, or a Stream.
// Who asks is CallerOf the request's context.
type Handler func(r *http.Request) (any, error)

// Stream is an answer in JSON lines. It calls emit for each until the context
// ends or emit fails.
type Stream func(ctx context.Context, emit func(any) error) error

// Route is one request that the server knows: "METHOD /v1/path", as
// http.ServeMux takes it, and either of the handlers.
type Route struct {
	Pattern string
	Handler Handler
	HTTP    http.Handler // in place of Handler, for what is not JSON of ours
}

// Options configure Listen.
type Options struct {
	Socket string                       // path
	Group  string                       // whose members may use it; where it does not exist, root alone
	Relay  func() (uid uint32, ok bool) // the relay's user, who may not; may be nil
	Log    *slog.Logger
}

// Server is the agent's end of the control socket.
type Server struct {
	l     *net.UnixListener
	path  string
	guard guard
	log   *slog.Logger
}

// Listen binds the socket with mode 0660. It fails where another agent listens.
func Listen(o Options) (*Server, error) {
	gid, mode := groupID(o.Group), os.FileMode(0o660)
	if gid < 0 {
		mode = 0o600
		o.Log.Warn("the control socket is for root alone: its group does not exist; create it with: groupadd --system "+o.Group, "group", o.Group)
	}
	l, err := unixsock.Listen(o.Socket, mode, gid)
	if err != nil {
		return nil, err
	}
	return &Server{l: l, path: o.Socket, guard: guard{gid: gid, relay: o.Relay}, log: o.Log}, nil
}

func groupID(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

// Run serves the routes until the context ends (nil), and removes the socket.
func (s *Server) Run(ctx context.Context, routes []Route) error {
	mux := http.NewServeMux()
	for _, r := range routes {
		h := r.HTTP
		if h == nil {
			h = s.serve(r.Handler)
		}
		mux.Handle(r.Pattern, h)
	}
	mux.Handle("/", s.serve(func(r *http.Request) (any, error) {
		return nil, Errorf(http.StatusNotFound, "no request %s %s; is the agent older than this command?", r.Method, r.URL.Path)
	}))
	srv := &http.Server{
		Handler:           s.checked(mux),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			caller, err := peerOf(c)
			if err != nil {
				s.log.Warn("control connection without credentials", "error", err)
				return ctx
			}
			return context.WithValue(ctx, callerKey{}, caller)
		},
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	defer stop()
	err := srv.Serve(s.l)
	os.Remove(s.path)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close gives the socket up where Run was never called.
func (s *Server) Close() error {
	os.Remove(s.path)
	return s.l.Close()
}

// checked lets in whom the guard admits.
func (s *Server) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(callerKey{}).(Caller)
		if !ok || !s.guard.admits(c) {
			s.log.Warn("control request refused", "caller", c.String(), "method", r.Method, "path", r.URL.Path)
			WriteError(w, Errorf(http.StatusForbidden, "%s may not use the control socket; run as root or as a member of its group", c))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) serve(h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := h(r)
		if err != nil {
			if StatusOf(err) >= 500 {
				s.log.Error("control request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if stream, ok := v.(Stream); ok {
			s.stream(w, r, stream)
			return
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			s.log.Debug("control answer not sent", "path", r.URL.Path, "error", err)
		}
	})
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, stream Stream) {
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	flush.Flush()
	enc := json.NewEncoder(w)
	err := stream(r.Context(), func(v any) error {
		if err := enc.Encode(v); err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil && r.Context().Err() == nil {
		s.log.Debug("control stream ended", "path", r.URL.Path, "error", err)
	}
}

// WriteError sends an error as its one line.
func WriteError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(StatusOf(err))
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	json.NewEncoder(w).Encode(&Error{Message: line})
}

// Decode reads a request's JSON body strictly: an unknown key is an error, for
// a command newer than the agent must not have half of its wish ignored.
func Decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(http.StatusBadRequest, "read request: %w", err)
	}
	return nil
}
