package derive

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// fakeHost is an agent without a kernel: a policy, documents, problems.
type fakeHost struct {
	mu       sync.Mutex
	changing sync.Mutex
	set      *policy.Set
	docs     map[string]store.Doc
	problems map[string]string
	changes  int
}

func newHost() *fakeHost {
	return &fakeHost{set: policy.NewSet(), docs: map[string]store.Doc{}, problems: map[string]string{}}
}

func (h *fakeHost) Policy() *policy.Set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.set
}

func (h *fakeHost) Ports() []uint16 { return []uint16{25, 465, 587} }

func (h *fakeHost) Docs(_ context.Context, collection string) (out []store.Doc, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.docs {
		if d.Collection == collection {
			out = append(out, d)
		}
	}
	return out, nil
}

func (h *fakeHost) Problem(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.problems, part); err != nil {
		h.problems[part] = err.Error()
	}
}

func (h *fakeHost) Change(_ context.Context, u agent.Update) (ans control.Changed, err error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	set := h.Policy().Clone()
	if u.Plan != nil {
		if err := u.Plan(set, &u); err != nil {
			return ans, err
		}
	}
	for _, k := range u.Remove {
		if old, ok := set.Remove(k); ok {
			ans.Removed = append(ans.Removed, old)
		}
	}
	for _, e := range u.Put {
		e.By, e.At = u.By, time.Now()
		if e, _, err = policy.New(e, nil); err != nil {
			return ans, err
		}
		set.Put(e)
		ans.Added = append(ans.Added, e)
	}
	if u.DryRun {
		return ans, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(u.Remove)+len(u.Put) > 0 {
		h.set = set
		h.changes++
	}
	for _, d := range u.DeleteDocs {
		delete(h.docs, d.Name)
	}
	for _, d := range u.PutDocs {
		h.docs[d.Name] = d
	}
	return ans, nil
}

// edit changes the policy behind the keeper's back, as undo does.
func (h *fakeHost) edit(fn func(*policy.Set)) {
	h.changing.Lock()
	defer h.changing.Unlock()
	set := h.Policy().Clone()
	fn(set)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set = set
}

// prefixes are those in force, "deny " before those of a deny.
func (h *fakeHost) prefixes() string {
	var out []string
	for e := range h.Policy().All() {
		text := e.Prefix.String()
		if e.Action == policy.Deny {
			text = "!" + text
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func (h *fakeHost) problem(part string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problems[part]
}

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a running keeper.
type rig struct {
	*Keeper
	t     *testing.T
	h     *fakeHost
	clock *clock
}

// start runs a keeper on a host, whose names are asked for at a server.
func start(t *testing.T, h *fakeHost, server string) *rig {
	t.Helper()
	c := agent.DefaultConfig()
	c.Names.Resolver, c.Names.MaxNew, c.Feeds.MaxNew = []string{server}, 3, 3
	clk := &clock{t: time.Now()}
	k := New(Options{Names: c.Names, Feeds: c.Feeds, Version: "test", Log: slog.New(slog.DiscardHandler), Now: clk.now})
	k.tick = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &rig{Keeper: k, t: t, h: h, clock: clk}
}

// post sends a request to the keeper's route.
func (r *rig) post(pattern string, body any) (control.Changed, error) {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	routes := r.routes(r.h)
	i := slices.IndexFunc(routes, func(route control.Route) bool { return route.Pattern == "POST "+pattern })
	v, err := routes[i].Handler(httptest.NewRequest(http.MethodPost, pattern, strings.NewReader(string(b))))
	if err != nil {
		return control.Changed{}, err
	}
	return v.(control.Changed), nil
}

func (r *rig) must(pattern string, body any) control.Changed {
	r.t.Helper()
	ans, err := r.post(pattern, body)
	if err != nil {
		r.t.Fatalf("%s: %v", pattern, err)
	}
	return ans
}

// eventually waits for what must become so.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s; in force %s, problems %v", what, r.h.prefixes(), r.h.problems)
		}
	}
}

// becomes waits for what is in force.
func (r *rig) becomes(want string) {
	r.t.Helper()
	r.eventually(want, func() bool { return r.h.prefixes() == want })
}

// says waits for a problem with some words in it; "" = for none.
func (r *rig) says(part, words string) {
	r.t.Helper()
	r.eventually(part+" says "+words, func() bool {
		p := r.h.problem(part)
		return (p == "") == (words == "") && strings.Contains(p, words)
	})
}
