// Command benchrelay measures synward-relay, Postfix and OpenSMTPD side by side:
// the same load, the same certificate, the same sink behind, one after the other
// in turns, each with its queue on the same disk. Run it by make bench-relay, as
// root: the servers change to users of their own.
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
	Plain    bool   `json:"plain"`    // without TLS and AUTH: the source has the right to relay
}

var scenarios = []scenario{
	{"50 sessions, 4 KiB", 50, 4 << 10, 0, false},
	{"1 session, 4 KiB", 1, 4 << 10, 0, false},
	{"50 sessions, 50 KiB", 50, 50 << 10, 0, false},
	{"one message a connection, 50 at once", 50, 4 << 10, 1, false},
	{"50 sessions, 4 KiB, no TLS", 50, 4 << 10, 0, true},
}

// server is one that is measured.
type server interface {
	name() string
	syncs() string // what is on the disk before its 250
	start(ctx context.Context) error
	stop() error
	address(plain bool) string // of implicit TLS, or of none; empty: it has no such
	pid() int                  // the root of its processes
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
	smtpd    string
	json     string
	svg      string
	doc      bool
}

func main() {
	var o options
	flag.StringVar(&o.relay, "relay", "build/synward-relay", "the relay's program")
	flag.StringVar(&o.smtpd, "opensmtpd", "build/opensmtpd", "where OpenSMTPD's package is unpacked; empty: without it")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "where the queues go: a real disk")
	flag.IntVar(&o.rounds, "rounds", 3, "times that each load is put on each server; the median counts")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "of one load")
	flag.IntVar(&o.idle, "idle", 1000, "idle sessions whose memory is measured, 0: none")
	flag.StringVar(&o.only, "only", "", "servers and loads whose name has this in it; a comma between several")
	flag.BoolVar(&o.pipeline, "pipeline", true, "send MAIL, RCPT and DATA in one write where the server offers that (RFC 2920)")
	flag.StringVar(&o.json, "json", "", "file for the numbers")
	flag.StringVar(&o.svg, "svg", "", "file for a plot")
	flag.BoolVar(&o.doc, "write", false, "write docs/performance-relay.json and .svg, and the table in docs/performance.md")
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
		return fmt.Errorf("root is needed: the servers change to users of their own")
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
	all := []server{newPostfix(env), newSynward(env, o.relay)}
	if o.smtpd != "" {
		root, err := filepath.Abs(o.smtpd)
		if err != nil {
			return err
		}
		all = append(all, newOpenSMTPD(env, root))
	}
	for _, s := range all {
		if o.wants(s.name(), ours, theirs, open) {
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
		if o.idle == 0 || s.address(false) == "" {
			continue
		}
		kib, err := idleMemory(ctx, env, s, o.idle)
		if err != nil {
			return fmt.Errorf("%s, idle sessions: %w", s.name(), err)
		}
		fmt.Fprintf(os.Stderr, "         %-9s %-38s %.1f KiB each\n", s.name(), fmt.Sprintf("%d idle sessions", o.idle), kib)
		r.Idle[s.name()] = kib
	}
	for round := range o.rounds {
		for _, sc := range scenarios {
			if !o.wants(sc.Name, names(scenarios)...) {
				continue
			}
			for _, s := range servers {
				if s.address(sc.Plain) == "" {
					continue
				}
				m, err := measure(ctx, o, env, s, sc)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name(), sc.Name, err)
				}
				fmt.Fprintf(os.Stderr, "round %d  %-9s %-38s %s\n", round+1, s.name(), sc.Name, m)
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
