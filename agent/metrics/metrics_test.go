package metrics_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/metrics"
)

func status(context.Context) (control.Status, error) {
	return control.Status{
		Agent: &control.AgentStatus{Version: "1.2.3", Since: time.Unix(1_800_000_000, 0), Allow: 3, Deny: 1},
		Filter: control.FilterStatus{
			Loaded: true, Mode: "enforce", Connections: 7,
			Interfaces: []control.Interface{{Name: "eth0", Mode: "native"}, {Name: "eth1"}},
			Counters:   []control.Counter{{Port: 587, Reason: "no-entry", Verdict: "drop", Packets: 42}},
		},
		Relay: &control.RelayStatus{Running: true, Own: json.RawMessage(`{"ready":true,"accepted":5,"queue":{"items":2,"oldest":"2026-01-01T00:00:00Z"}}`)},
	}, nil
}

// scrape serves source at listen and reads it once.
func scrape(t *testing.T, listen string, source metrics.Source) string {
	t.Helper()
	s, err := metrics.Listen(metrics.Config{Listen: listen}, -1, source, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial(s.Addr().Network(), addrOf(s, listen))
	}}}
	resp, err := client.Get("http://agent/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return string(text)
}

func addrOf(s *metrics.Server, listen string) string {
	if filepath.IsAbs(listen) {
		return listen
	}
	return s.Addr().String()
}

func TestScrape(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", filepath.Join(t.TempDir(), "m.sock")} {
		text := scrape(t, listen, status)
		for _, line := range []string{
			"synward_up 1",
			`synward_build_info{version="1.2.3"} 1`,
			`synward_entries{action="allow"} 3`,
			"synward_filter_enforcing 1",
			`synward_filter_attached{interface="eth0",mode="native"} 1`,
			`synward_filter_attached{interface="eth1",mode="none"} 0`,
			`synward_filter_packets_total{observed="false",port="587",reason="no-entry",verdict="drop"} 42`,
			"synward_relay_up 1",
			"synward_relay_messages_accepted_total 5",
			"synward_queue_items 2",
			"synward_queue_oldest_timestamp_seconds 1.7672256e+09",
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("%s: no line %q in\n%s", listen, line, text)
			}
		}
		known := []string{"action", "interface", "mode", "observed", "port", "reason", "verdict", "version"}
		for _, m := range regexp.MustCompile(`(?m)^synward_.*`).FindAllString(text, -1) {
			for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m, -1) {
				if !slices.Contains(known, label[1]) { // an address above all: there are as many as strangers
					t.Errorf("%s has the label %s", m, label[1])
				}
			}
		}
	}
}

func TestScrapeOfASilentAgent(t *testing.T) {
	text := scrape(t, "127.0.0.1:0", func(context.Context) (control.Status, error) { return control.Status{}, errors.New("no answer") })
	if !strings.Contains(text, "synward_up 0\n") || strings.Contains(text, "synward_filter_loaded ") {
		t.Errorf("want synward_up 0 and no more of ours:\n%s", text)
	}
}

func TestBadListen(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:9587", "192.0.2.1:9587", ":9587", "9587", "run/m.sock", "/" + strings.Repeat("x", 100)} {
		if err := (metrics.Config{Listen: listen}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "metrics.listen: ") {
			t.Errorf("%q: %v, want an error that names the key", listen, err)
		}
	}
	for _, listen := range []string{"", "127.0.0.1:9587", "[::1]:9587", "/run/synward/metrics.sock"} {
		if err := (metrics.Config{Listen: listen}).Validate(); err != nil {
			t.Errorf("%q: %v", listen, err)
		}
	}
}
