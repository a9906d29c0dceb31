package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/admin"
	"github.com/synward/synward/relay/queue"
)

// shell runs commands against a control socket.
type shell struct {
	t      *testing.T
	socket string
}

// serveControl puts a handler where an agent's control socket would be.
func serveControl(t *testing.T, h http.Handler) shell {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return shell{t, socket}
}

// run returns what a command says on stdout and stderr, and its exit status.
func (s shell) run(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), append([]string{"synward", "--socket", s.socket}, args...), streams{strings.NewReader(stdin), &out, &err})
	return out.String(), err.String(), code
}

// must is run for a command that has to succeed.
func (s shell) must(args ...string) string {
	s.t.Helper()
	out, stderr, code := s.run("", args...)
	if code != 0 {
		s.t.Fatalf("%v: exit status %d, %s", args, code, stderr)
	}
	return out
}

// withQueue is a shell with the relay's real queue and admin handler behind it.
func withQueue(t *testing.T) (shell, *queue.Queue) {
	t.Helper()
	q, err := queue.Open(t.TempDir(), queue.Options{SegmentSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	ways := relay.Settings{Smarthosts: []relay.Smarthost{{Host: "smart.example", Port: 587}}}.Ways()
	h := admin.Handler(admin.Options{
		Queue: q, NextHops: ways, Events: relay.NewEvents(time.Now), Stats: q.Stats,
		Hands: admin.Hands{Retry: q.Retry, Hold: q.Hold, Release: q.Release, Delete: q.Delete},
	})
	return serveControl(t, http.StripPrefix("/v1/relay", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/v1" + r.URL.Path
		h.ServeHTTP(w, r)
	}))), q
}

func TestQueueCommands(t *testing.T) {
	s, q := withQueue(t)
	if _, stderr, _ := s.run("", "queue", "list"); stderr != "the queue is empty\n" {
		t.Errorf("empty: %q", stderr)
	}
	var ids []string
	for _, from := range []string{"a@one.example", "b@two.example", ""} {
		env := queue.Envelope{From: from, Rcpts: []queue.Recipient{{Addr: "x@y.example"}, {Addr: "z@y.example"}}, Source: netip.MustParseAddr("192.0.2.1")}
		id, err := q.Add(context.Background(), env, strings.NewReader("text"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := q.Postpone(ids[0], time.Now().Add(time.Hour), "451 later\x1b[2J"); err != nil {
		t.Fatal(err)
	}
	out := s.must("queue", "list")
	for _, want := range append(ids, "smart.example:587", "x@y.example +1", "<>", "451 later", `\x1b[2J`) {
		if !strings.Contains(out, want) {
			t.Errorf("list has no %s:\n%s", want, out)
		}
	}
	held := func() (n int) { return q.Stats().Held }
	s.must("queue", "hold", ids[0], ids[1], "--dry-run")
	if _, stderr, code := s.run("", "queue", "hold", ids[0], "nosuch"); code != 1 || !strings.Contains(stderr, "nosuch") || held() != 0 {
		t.Errorf("a bad id among good ones: %d %s, %d held", code, stderr, held())
	}
	if s.must("queue", "hold", ids[0], ids[1]); held() != 2 {
		t.Errorf("%d are held, want 2", held())
	}
	if out := s.must("queue", "list", "--held", "--sender", "two.example"); !strings.Contains(out, "held") || strings.Count(out, "\n") != 2 {
		t.Errorf("list of the held ones from two.example:\n%s", out)
	}
	if s.must("queue", "release", "all", "--sender", "one.example"); held() != 1 {
		t.Errorf("%d are held, want 1", held())
	}
	if out := s.must("queue", "delete", "all", "--sender", "<>", "--dry-run"); !strings.Contains(out, "would be deleted: "+ids[2]) || q.Stats().Items != 3 {
		t.Errorf("dry run of delete: %s", out)
	}
	var ans struct {
		Deleted []string `json:"deleted"`
	}
	if err := json.Unmarshal([]byte(s.must("queue", "delete", "all", "--next-hop", "smart.example", "--json")), &ans); err != nil || len(ans.Deleted) != 3 {
		t.Errorf("delete: %v, %v", ans, err)
	}
	if n := q.Stats().Items; n != 0 {
		t.Errorf("%d items are left", n)
	}
	if out := s.must("queue", "delete", ids[0]); out != "not there "+ids[0]+"\n" {
		t.Errorf("deleted again: %q", out)
	}
	if out := s.must("queue", "delete", ids[0], "--json"); !strings.Contains(out, `"deleted": []`) || !strings.Contains(out, `"missing": [`) {
		t.Errorf("deleted again: %s", out)
	}
	for _, bad := range [][]string{{"queue", "hold"}, {"queue", "hold", ids[0], "--held"}, {"queue", "list", "--older", "soon"}} {
		if _, stderr, code := s.run("", bad...); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: %d %q", bad, code, stderr)
		}
	}
}
