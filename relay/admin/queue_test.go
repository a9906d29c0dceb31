package admin

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestQueueIsChanged(t *testing.T) {
	_, q, _, srv := setup(t)
	for _, c := range []struct {
		method, path string
		code         int
		want, done   string
	}{
		{"POST", "/v1/queue/a/retry", 200, `{"done":"retried","items":["a"],"dry_run":false}`, "retry a"},
		{"POST", "/v1/queue/all/retry", 200, `"items":["a","b"]`, "retry a,retry b"},
		{"POST", "/v1/queue/all/retry?dry_run=1", 200, `"items":["a","gone","b"],"dry_run":true`, ""},
		{"POST", "/v1/queue/nosuch/retry", 404, "no item", ""},
		{"POST", "/v1/queue/a/hold", 200, `"done":"held"`, "hold a"},
		{"POST", "/v1/queue/a/hold?dry_run=1", 200, `"items":["a"],"dry_run":true`, ""},
		{"POST", "/v1/queue/all/release?held=1", 200, `"items":["b"]`, "release b"},
		{"DELETE", "/v1/queue/a", 200, `"done":"deleted"`, "delete a"},
		{"DELETE", "/v1/queue/all?sender=one.example&older=150m", 200, `"items":["a"]`, "delete a"},
		{"DELETE", "/v1/queue/all?sendr=one.example", 400, "no filter", ""},
		{"DELETE", "/v1/queue/all?older=2d", 400, "not a duration", ""},
		{"DELETE", "/v1/queue/nosuch", 404, "no item", ""},
		{"POST", "/v1/queue/a/explode", 404, "", ""},
	} {
		q.done = nil
		code, text := ask(t, srv, c.method, c.path, "")
		if code != c.code || !strings.Contains(text, c.want) || strings.Join(q.done, ",") != c.done {
			t.Errorf("%s %s: %d %q, done %v; want %d %q, %q", c.method, c.path, code, text, q.done, c.code, c.want, c.done)
		}
	}
}

func TestQueueFilters(t *testing.T) {
	_, _, _, srv := setup(t)
	for query, want := range map[string]string{
		"": "a gone b", "older=150m": "a", "older=0s": "a gone b", "sender=x@ONE.example": "a gone", "sender=y@one.example": "",
		"sender=one.example": "a gone", "sender=@one.example": "a gone", "sender=%3C%3E": "b", "recipient=three.example": "b",
		"next_hop=hop.two.example": "a gone", "next_hop=HOP.two.example:25": "a gone", "next_hop=hop.two.example:26": "",
		"held=1": "b", "held=0": "a gone", "older=90m&recipient=y@two.example": "a gone", "older=90m&held=1": "",
	} {
		code, text := ask(t, srv, "GET", "/v1/queue?"+query, "")
		var items []struct {
			ID   string   `json:"id"`
			Hops []string `json:"next_hops"`
		}
		if err := json.Unmarshal([]byte(text), &items); code != 200 || err != nil {
			t.Errorf("%q: %d %q", query, code, text)
			continue
		}
		var ids []string
		for _, it := range items {
			ids = append(ids, it.ID)
			if len(it.Hops) != 1 {
				t.Errorf("%q: next hops of %s are %v", query, it.ID, it.Hops)
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q picks %q, want %q", query, got, want)
		}
	}
}
