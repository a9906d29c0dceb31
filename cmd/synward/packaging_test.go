package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The configuration that the packages bring is good, only observes, and is
// good as well with all that it has commented out.
func TestPackagedConfiguration(t *testing.T) {
	const path = "../../packaging/synward.toml"
	f, err := loadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Filter.Mode != "observe" || f.Relay.Enabled {
		t.Errorf("mode %q, relay %v: a package must not lock anybody out", f.Filter.Mode, f.Relay.Enabled)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^# ?(\[+[a-z.]+\]+|[a-z_]+ *= .*)$`).ReplaceAllString(string(text), "$1")
	all = strings.Replace(all, "enabled = false", "enabled = true", 1)
	full := filepath.Join(t.TempDir(), "full.toml")
	if err := os.WriteFile(full, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err = loadFile(full)
	if err != nil {
		t.Fatalf("with all uncommented: %v", err)
	}
	if f.Relay.Hostname == "" || len(f.Relay.Smarthost) != 1 || f.Metrics.Listen == "" {
		t.Errorf("not all was uncommented: %+v", f.Relay)
	}
	var out bytes.Buffer
	if code := run(context.Background(), []string{"synward", "--config", path, "config", "check"}, streams{out: &out, err: &out}); code != 0 {
		t.Errorf("config check: %s", out.String())
	}
}
