// Package packaging has no code: its test holds the files that the packages
// bring against what the program says of itself.
package packaging

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/synward/synward/test/stage"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What alerts and dashboard ask for is what the agent serves.
func TestMetricsExist(t *testing.T) {
	served := read(t, "../agent/metrics/collector.go")
	name := regexp.MustCompile(`synward_[a-z_]+`)
	for _, file := range []string{"prometheus/synward-alerts.yml", "grafana/synward.json"} {
		found := name.FindAllString(read(t, file), -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", file, len(found))
		}
		for _, m := range found {
			if !strings.Contains(served, `"`+m+`"`) {
				t.Errorf("%s asks for %s, which nobody serves", file, m)
			}
		}
	}
}

func TestDashboardIsJSON(t *testing.T) {
	var dashboard struct {
		Title  string
		Panels []any
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/synward.json")), &dashboard); err != nil || dashboard.Title == "" || len(dashboard.Panels) == 0 {
		t.Errorf("%v: %+v", err, dashboard)
	}
}

// What nfpm packs is there.
func TestContentsExist(t *testing.T) {
	src := regexp.MustCompile(`(?m)src: ([a-z][^,]*),`)
	found := src.FindAllStringSubmatch(read(t, "nfpm.yaml"), -1)
	if len(found) < 8 {
		t.Fatalf("nfpm.yaml names %d files", len(found))
	}
	for _, m := range found {
		if strings.Contains(m[1], "*") {
			continue
		}
		if _, err := os.Stat("../" + m[1]); err != nil {
			t.Error(err)
		}
	}
}

// In a unit the last word on system calls counts: bpf must come after every
// group that takes it away again, and the pins must stay writable.
func TestUnit(t *testing.T) {
	unit := read(t, "systemd/synward.service")
	last := strings.LastIndex(unit, "SystemCallFilter=")
	if !strings.HasPrefix(unit[last:], "SystemCallFilter=bpf perf_event_open\n") {
		t.Error("SystemCallFilter=bpf perf_event_open is not the last of its kind")
	}
	if strings.Contains(unit, "\nProtectKernelTunables=yes") {
		t.Error("ProtectKernelTunables makes /sys/fs/bpf read-only")
	}
	for _, line := range []string{"CapabilityBoundingSet=" + stage.Capabilities, "Type=notify", "KillMode=process", "RuntimeDirectoryPreserve=yes", "WatchdogSec=30", "FileDescriptorStoreMax=32"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}
