// Command benchrelay measures synward-relay and Postfix side by side: the same
// load, the same certificate, the same sink behind, one after the other in
// turns, each with its queue on the same disk. Run it by make bench-relay, as
// root: both servers change to users of their own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// scenario is one kind of load.
type scenario struct {
	Name     string `json:"name"`
	Sessions int    `json:"sessions"`
	Size     int    `json:"size"`     // octets of a message
	PerConn  int    `json:"per_conn"` // messages on one connection, 0: all
}

var scenarios = []scenario{
	{"50 sessions, 4 KiB", 50, 4 << 10, 0},
	{"1 session, 4 KiB", 1, 4 << 10, 0},
	{"50 sessions, 50 KiB", 50, 50 << 10, 0},
	{"one message a connection, 50 at once", 50, 4 << 10, 1},
}

// server is one that is measured.
type server interface {
	name() string
	syncs() string // what is on the disk before its 250
	start(ctx context.Context) error
	stop() error
	address() string // implicit TLS
	pid() int        // the root of its processes
}

type options struct {
	dir      string
	rounds   int
	duration time.Duration
	idle     int
	only     string
	pipeline bool
	keep     bool
	relay    string
	json     string
	svg      string
}

func main() {
	var o options
	flag.StringVar(&o.relay, "relay", "build/synward-relay", "the relay's program")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "where the queues go: a real disk")
	flag.IntVar(&o.rounds, "rounds", 3, "times that each load is put on each server; the median counts")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "of one load")
	flag.IntVar(&o.idle, "idle", 1000, "idle sessions whose memory is measured, 0: none")
	flag.StringVar(&o.only, "only", "", "servers and loads whose name has this in it; a comma between several")
	flag.BoolVar(&o.pipeline, "pipeline", true, "send MAIL, RCPT and DATA in one write (RFC 2920)")
	flag.StringVar(&o.json, "json", "", "file for the numbers")
	flag.StringVar(&o.svg, "svg", "", "file for a plot")
	flag.BoolVar(&o.keep, "keep", false, "leave queues and logs where they are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "benchrelay: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed: both servers change to users of their own")
	}
	dir, err := os.MkdirTemp(o.dir, "synward-bench")
	if err != nil {
		return err
	}
	if !o.keep {
		defer os.RemoveAll(dir)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	env, err := newStage(dir)
	if err != nil {
		return err
	}
	defer env.sink.close()
	var servers []server
	for _, s := range []server{newPostfix(env), newSynward(env, o.relay)} {
		if o.wants(s.name(), "postfix", "synward") {
			servers = append(servers, s)
		}
	}
	r := newReport(o)
	for _, s := range servers {
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.name(), err)
		}
		defer s.stop()
		r.Syncs[s.name()] = s.syncs()
	}
	if err := measureAll(ctx, o, env, servers, r); err != nil {
		return err
	}
	return r.write(o)
}

func measureAll(ctx context.Context, o options, env *stage, servers []server, r *report) error {
	// First, while nothing has grown yet that the idle sessions could live in.
	for _, s := range servers {
		if o.idle == 0 {
			break
		}
		kib, err := idleMemory(ctx, env, s, o.idle)
		if err != nil {
			return fmt.Errorf("%s, idle sessions: %w", s.name(), err)
		}
		fmt.Fprintf(os.Stderr, "         %-8s %-38s %.1f KiB each\n", s.name(), fmt.Sprintf("%d idle sessions", o.idle), kib)
		r.Idle[s.name()] = kib
	}
	for round := range o.rounds {
		for _, sc := range scenarios {
			if !o.wants(sc.Name, names(scenarios)...) {
				continue
			}
			for _, s := range servers {
				m, err := measure(ctx, o, env, s, sc)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name(), sc.Name, err)
				}
				fmt.Fprintf(os.Stderr, "round %d  %-8s %-38s %s\n", round+1, s.name(), sc.Name, m)
				r.add(s.name(), sc, m)
			}
		}
	}
	return nil
}

// wants says whether name was asked for, among the names of its kind.
func (o options) wants(name string, kind ...string) bool {
	any := false
	for _, w := range strings.Split(o.only, ",") {
		for _, k := range kind {
			any = any || w != "" && strings.Contains(k, w)
		}
		if w != "" && strings.Contains(name, w) {
			return true
		}
	}
	return !any
}

func names(list []scenario) (n []string) {
	for _, s := range list {
		n = append(n, s.Name)
	}
	return n
}

// writeJSON writes v to a file that is there whole or not at all.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
