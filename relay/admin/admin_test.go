package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/queue"
	"github.com/synward/synward/relay/sandbox"
)

type fakeFront struct {
	mu      sync.Mutex
	applied []relay.Settings
}

func (f *fakeFront) Apply(s relay.Settings) error {
	if s.Hostname == "bad" {
		return errors.New("hostname: two\nlines")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, s)
	return nil
}

func (f *fakeFront) Status() relay.Status { return relay.Status{Listeners: []string{"25/starttls"}} }

func (f *fakeFront) Denied(byCount bool) relay.DeniedList {
	return relay.DeniedList{Denied: []relay.Denied{{User: fmt.Sprint("by count: ", byCount)}}}
}

// fakeQueue notes what is done to its items; "gone" leaves before it can be.
type fakeQueue struct{ done []string }

func (*fakeQueue) List() []queue.Item {
	mail := func(from, to string) queue.Envelope {
		return queue.Envelope{From: from, Rcpts: []queue.Recipient{{Addr: to}}}
	}
	return []queue.Item{
		{ID: "a", Envelope: mail("x@one.example", "y@two.example"), Received: time.Now().Add(-3 * time.Hour)},
		{ID: "gone", Envelope: mail("x@one.example", "y@two.example"), Received: time.Now().Add(-2 * time.Hour)},
		{ID: "b", Envelope: mail("", "y@three.example"), Received: time.Now(), Held: true},
	}
}

func (*fakeQueue) Get(id string) (queue.Item, error) {
	switch id {
	case "a":
		return queue.Item{ID: "a", Size: 7}, nil
	case "sick":
		return queue.Item{}, queue.ErrBroken
	}
	return queue.Item{}, fmt.Errorf("find item: %w", queue.ErrNotFound)
}

func (q *fakeQueue) hand(verb string) func(id string) error {
	return func(id string) error {
		if id != "a" && id != "b" {
			return queue.ErrNotFound
		}
		q.done = append(q.done, verb+" "+id)
		return nil
	}
}

func (q *fakeQueue) hands() Hands {
	return Hands{Retry: q.hand("retry"), Hold: q.hand("hold"), Release: q.hand("release"), Delete: q.hand("delete")}
}

func setup(t *testing.T) (*fakeFront, *fakeQueue, *relay.Events, *httptest.Server) {
	t.Helper()
	f, q, ev := &fakeFront{}, &fakeQueue{}, relay.NewEvents(time.Now)
	srv := httptest.NewServer(Handler(Options{
		Front: f, Queue: q, Hands: q.hands(), Events: ev, Version: "v1",
		NextHops: func(d string) []string { return []string{"hop." + d + ":25"} },
		Sandbox:  sandbox.Report{Landlock: "abi 7"},
		Stats:    func() queue.Stats { return queue.Stats{Items: 3} },
	}))
	t.Cleanup(srv.Close)
	return f, q, ev, srv
}

func ask(t *testing.T, srv *httptest.Server, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAnswers(t *testing.T) {
	_, _, _, srv := setup(t)
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"PUT", "/v1/settings", `{"hostname":"mx.example"}`, 200, `"settings_hash":"`},
		{"PUT", "/v1/settings", `{"hostname":"bad"}`, 400, "hostname: two; lines\n"},
		{"PUT", "/v1/settings", `{"hostnam":"x"}`, 400, "unknown field"},
		{"PUT", "/v1/settings", `{`, 400, "read settings: "},
		{"PUT", "/v1/settings", `{}{}`, 400, "more than one document"},
		{"GET", "/v1/settings", "", 405, ""},
		{"GET", "/v1/status", "", 200, `{"version":"v1",`},
		{"GET", "/v1/status", "", 200, `"listeners":["25/starttls"]`},
		{"GET", "/v1/status", "", 200, `"landlock":"abi 7"`},
		{"GET", "/v1/status", "", 200, `"queue":{"items":3,`},
		{"GET", "/v1/queue", "", 200, `[{"id":"a",`},
		{"GET", "/v1/queue/a", "", 200, `"size":7`},
		{"GET", "/v1/queue/nosuch", "", 404, `no item "nosuch"`},
		{"GET", "/v1/queue/sick", "", 500, queue.ErrBroken.Error()},
		{"GET", "/v1/denied", "", 200, `"user":"by count: false"`},
		{"GET", "/v1/denied?by=count", "", 200, `"user":"by count: true"`},
		{"GET", "/v1/events?since=x", "", 400, "not the number"},
		{"GET", "/v2/status", "", 404, ""},
	} {
		code, text := ask(t, srv, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s %s %s: %d %q, want %d %q", c.method, c.path, c.body, code, text, c.code, c.want)
		}
	}
}

func TestBadSettingsAreNotApplied(t *testing.T) {
	f, _, _, srv := setup(t)
	ask(t, srv, "PUT", "/v1/settings", `{"hostname":"mx.example"}{"hostname":"my.example"}`)
	if len(f.applied) != 0 {
		t.Errorf("applied %+v", f.applied)
	}
}

func TestEventsFollow(t *testing.T) {
	_, _, ev, srv := setup(t)
	ev.Add(relay.Event{Kind: relay.Accepted, Item: "old"})
	if _, text := ask(t, srv, "GET", "/v1/events", ""); !strings.Contains(text, `"item":"old"`) {
		t.Errorf("held events are %q", text)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/v1/events?follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req) // returns before there is any event
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 {
		ev.Add(relay.Event{Kind: relay.Accepted, Item: fmt.Sprint("new", i)})
	}
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || !strings.Contains(lines.Text(), fmt.Sprintf(`"item":"new%d"`, i)) {
			t.Fatalf("line %d is %q, %v", i, lines.Text(), lines.Err())
		}
	}
	if _, text := ask(t, srv, "GET", "/v1/events?since=2", ""); strings.Count(text, "\n") != 2 {
		t.Errorf("since 2: %q", text)
	}
}

// TestRunEnds: a follower does not keep the socket open for ever.
func TestRunEnds(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	h := Handler(Options{Front: &fakeFront{}, Queue: &fakeQueue{}, Events: relay.NewEvents(time.Now), Stats: func() queue.Stats { return queue.Stats{} }})
	go func() { ended <- Run(ctx, l, h) }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: relay\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
