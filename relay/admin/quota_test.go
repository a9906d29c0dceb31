package admin

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/quota"
)

type fakeLimits struct{}

func (fakeLimits) UserQuota(name string) (string, quota.Limits, bool) {
	return "user " + name, quota.Limits{MessagesPerHour: 1}, name == "alice"
}

func (fakeLimits) SourceQuota(p netip.Prefix) (string, quota.Limits) {
	return "source " + p.String(), quota.Limits{}
}

func TestQuotas(t *testing.T) {
	book, err := quota.Open(filepath.Join(t.TempDir(), "q"), time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	for _, key := range []string{"user alice", "held user alice", "user gone", "source 192.0.2.1/32"} {
		book.Take(key, quota.Limits{}, 2)
	}
	srv := httptest.NewServer(Handler(Options{Quotas: book, Limits: fakeLimits{}, Events: relay.NewEvents(time.Now)}))
	t.Cleanup(srv.Close)
	for _, c := range []struct {
		method, path string
		code         int
		want         []string
	}{
		{"GET", "/v1/quota", 200, []string{`"user":"alice"`, `"source":"192.0.2.1/32"`, `"recipients_day":2`}},
		{"GET", "/v1/quota?user=alice", 200, []string{`"limits":{"messages_per_hour":1}`, `"over":"1 message an hour"`, `"until":"20`}},
		{"GET", "/v1/quota?source=192.0.2.1", 200, []string{`"messages_hour":1`}},
		{"GET", "/v1/quota?user=gone", 404, []string{"no user gone"}},
		{"GET", "/v1/quota?source=here", 404, []string{"neither an address nor a prefix"}},
		{"POST", "/v1/quota/reset", 404, []string{"say whose"}},
		{"POST", "/v1/quota/reset?user=gone", 404, []string{"no user"}},
		{"POST", "/v1/quota/reset?user=alice", 200, []string{`"reset":true`}},
		{"GET", "/v1/quota?user=alice", 200, []string{`"messages_hour":0`}},
	} {
		code, text := ask(t, srv, c.method, c.path, "")
		for _, want := range c.want {
			if code != c.code || !strings.Contains(text, want) {
				t.Errorf("%s %s: %d %q, want %d %s", c.method, c.path, code, text, c.code, want)
			}
		}
	}
	if got := fmt.Sprint(book.Keys()); got != "[source 192.0.2.1/32 user gone]" {
		t.Errorf("after the reset there are %s", got)
	}
}
