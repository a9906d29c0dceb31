package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/synward/synward/agent/unixsock"
)

// Config is [metrics].
type Config struct {
	Listen string `toml:"listen" json:"listen"` // a unix socket's path or a loopback address with a port; empty = none
}

// Validate says what is wrong, after the key.
func (c Config) Validate() error {
	if c.Listen == "" {
		return nil
	}
	if filepath.IsAbs(c.Listen) {
		if len(c.Listen) > 100 {
			return fmt.Errorf("metrics.listen: a socket's path may be 100 bytes long, this has %d", len(c.Listen))
		}
		return nil
	}
	a, err := netip.ParseAddrPort(c.Listen)
	if err != nil {
		return fmt.Errorf("metrics.listen: %q is neither the absolute path of a socket nor like 127.0.0.1:9587", c.Listen)
	}
	if !a.Addr().IsLoopback() {
		return fmt.Errorf("metrics.listen: %s is no loopback address: anybody could read them; use 127.0.0.1 and let your scraper fetch them from there", a.Addr())
	}
	return nil
}

// Server serves /metrics.
type Server struct {
	l    net.Listener
	http *http.Server
}

// Listen opens the place that a valid c names; it must not be empty. A socket
// has the mode 0660 and the group gid (-1 = the process's own).
func Listen(c Config, gid int, source Source, log *slog.Logger) (*Server, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(source), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 2 * scrapeTimeout}))
	s := &Server{http: &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	var err error
	if filepath.IsAbs(c.Listen) {
		s.l, err = unixsock.Listen(c.Listen, 0o660, gid)
	} else if s.l, err = net.Listen("tcp", c.Listen); err != nil {
		err = fmt.Errorf("metrics.listen: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.l.Addr() }

// Run serves until the context ends (nil).
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
