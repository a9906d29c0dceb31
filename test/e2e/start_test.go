package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/test/stage"
)

// filtered names the edge's interfaces that carry an XDP program.
func filtered(t *testing.T, s *stage.Stage) string {
	t.Helper()
	var names []string
	s.Edge.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if x := l.Attrs().Xdp; x != nil && x.Attached {
				names = append(names, l.Attrs().Name)
			}
		}
		return err
	})
	return strings.Join(names, " ")
}

// refusal is an agent that must not start.
type refusal struct {
	name     string
	old, new string // in the configuration
	says     []string
}

func (r refusal) check(t *testing.T, s *stage.Stage) {
	t.Helper()
	text, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(text), r.old, r.new, 1)
	if bad == string(text) {
		t.Fatalf("%s: %q is not in the configuration", r.name, r.old)
	}
	file := filepath.Join(s.Dir, strings.ReplaceAll(r.name, " ", "-")+".toml")
	if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	got := s.Raw("", "agent", "--config", file, "--log", "error")
	if got.Code != 1 || strings.Count(got.Err, "\n") != 1 || !strings.HasPrefix(got.Err, "synward: ") || got.Out != "" {
		t.Errorf("%s: %+v, want exit status 1 and one line", r.name, got)
	}
	for _, w := range r.says {
		if !strings.Contains(got.Err, w) {
			t.Errorf("%s: the error does not say %q: %s", r.name, w, got.Err)
		}
	}
}

// TestAgentRefuses: an agent that cannot start says why in one line and leaves
// nothing behind.
func TestAgentRefuses(t *testing.T) {
	t.Parallel()
	s := set(t, false)
	notPEM := filepath.Join(s.Dir, "not.pem")
	if err := os.WriteFile(notPEM, []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	taken := s.Edge.Listen(":465")
	for _, r := range []refusal{
		{"port taken", "[filter]", "[filter]", nil},
		{"unknown key", "pin_dir    =", "pindir = \"/x\"\npin_dir    =", []string{":3:1:", "pindir"}},
		{"unknown section", "[store]", "[filtre]\n[store]", []string{"filtre"}},
		{"not TOML", "[store]", "[store", []string{":5:"}},
		{"bad mode", "pin_dir    =", "mode = \"maybe\"\npin_dir    =", []string{":3:1:", "filter.mode", "maybe"}},
		{"bad type", "enabled   = true", "enabled   = \"yes\"", []string{":12:", "relay.enabled"}},
		{"bad port section", "[store]", "[ports.99999]\n[store]", []string{"99999", "65535"}},
		{"bad rate", "[store]", "[caps]\nrate = \"fast\"\n[store]", []string{"caps.rate", "fast"}},
		{"bad hostname", "edge.example", "edge example", []string{"relay.hostname", "edge example"}},
		{"missing certificate", "/cert.pem", "/none.pem", []string{"relay.tls.cert", "none.pem", "no such file"}},
		{"certificate is none", s.Dir + "/cert.pem", notPEM, []string{"tls"}},
		{"missing interface", `["eth*"]`, `["eth0", "eth7"]`, []string{"filter.interfaces", "eth7", "eth0"}},
		{"no such user", `"nobody"`, `"nosuchuser"`, []string{"relay.user", "nosuchuser", "useradd"}},
		{"root", `"nobody"`, `"root"`, []string{"relay.user", "root"}},
		{"no bpffs", `pin_dir    = "`, `pin_dir    = "` + s.Dir + "/state", []string{"bpf filesystem", "mount"}},
	} {
		if r.name == "port taken" {
			r.new, r.says = "# as it is\n[filter]", []string{"465", "another program"}
		}
		r.check(t, s)
		if r.name == "port taken" {
			taken.Close()
		}
	}
	if got := filtered(t, s); got != "" {
		t.Errorf("an agent that did not start has left a program on %s", got)
	}
	if _, err := os.Stat(filepath.Join(s.PinDir, "filter")); err == nil {
		t.Error("an agent that did not start has left its pins")
	}
	// and when all is well again it starts
	s.StartAgent()
	if got := filtered(t, s); got != "eth0 eth1" {
		t.Errorf("the filter is on %q", got)
	}
}

// TestRunningAgentIsNotDisturbed: neither by a second one, nor by a bad file,
// nor by pins that the next one cannot read.
func TestRunningAgentIsNotDisturbed(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "allow", "add", stage.ClientPrefix)
	in := []knock{
		{s.Client, "", stage.EdgeForClient, "587", "greeting"},
		{s.Stranger, "", stage.EdgeForStranger, "587", "silence"},
	}
	for _, r := range []refusal{
		{"second agent", "[store]", "# as it is\n[store]", []string{"another agent"}},
		{"second agent with its own store", "/state/", "/state2/", []string{"listen", "synward.sock"}},
	} {
		if r.name != "second agent" {
			r.says = nil // whichever of socket, port and pins it meets first
		}
		r.check(t, s)
	}
	heard(t, in...)

	text, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	reload(t, s, strings.Replace(string(text), `["eth*"]`, `["eth9"]`, 1), "not reloaded")
	heard(t, in...)
	reload(t, s, strings.Replace(string(text), "[store]", "mode = \"observe\"\n[store]", 1), "configuration reloaded")
	eventually(t, "an event says what would be dropped", func() bool {
		heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "587", "greeting"})
		return strings.Contains(must(t, s, "events", "--source", stage.StrangerAddr), "would be dropped")
	})
	if out := must(t, s, "status"); !strings.Contains(out, "observing") {
		t.Errorf("status in observe mode:\n%s", out)
	}
	reload(t, s, string(text), "configuration reloaded")
	heard(t, in...)

	// the pins of another version: a map that this one has is not there
	if err := s.EndAgent(terminate); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if err := os.Remove(filepath.Join(s.PinDir, "filter", "meters")); err != nil {
		t.Fatal(err)
	}
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "587", "silence"})
	s.StartAgent()
	if !strings.Contains(s.Log(), "the new one has taken over") {
		t.Error("the log does not tell of the filter that was taken over")
	}
	heard(t, in...)
}

// reload writes the configuration, sends SIGHUP, and waits for what the agent
// says to it.
func reload(t *testing.T, s *stage.Stage, text, says string) {
	t.Helper()
	if err := os.WriteFile(s.Config(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(s.Log(), says)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent says: "+says, func() bool { return strings.Count(s.Log(), says) > before })
}

// TestAutoWithoutADefaultRoute: the agent runs, everything says that nothing is
// protected and what to do, and the route's coming is all that it takes.
func TestAutoWithoutADefaultRoute(t *testing.T) {
	t.Parallel()
	s := set(t, false)
	text, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Config(), []byte(strings.Replace(string(text), `["eth*"]`, `["auto"]`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.StartAgent()
	if got := s.Run("", "status"); !strings.Contains(got.Out, "protects nothing") || !strings.Contains(got.Err, "no default route") {
		t.Errorf("status: %+v", got)
	}
	if f := finding(t, s, "interfaces"); f.Grade != "fail" || !strings.Contains(f.Text, "protects nothing") || !strings.Contains(f.Mend, "ip route add default") {
		t.Errorf("doctor says %+v", f)
	}
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "587", "greeting"})

	if out, err := s.Edge.Command(t.Context(), "ip", "route", "add", "default", "via", stage.StrangerAddr).CombinedOutput(); err != nil {
		t.Fatalf("add a default route: %v: %s", err, out)
	}
	eventually(t, "the filter is on the route's interface", func() bool { return filtered(t, s) == "eth1" })
	heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "587", "silence"})
	eventually(t, "status is content", func() bool {
		got := s.Run("", "status")
		return !strings.Contains(got.Out, "protects nothing") && !strings.Contains(got.Err, "no default route")
	})
	if f := finding(t, s, "interfaces"); f.Grade != "" {
		t.Errorf("doctor still says %+v", f)
	}
}

type doctorLine struct{ Check, Grade, Text, Mend string }

// finding is the doctor's line of a check; none where it has nothing to say.
func finding(t *testing.T, s *stage.Stage, check string) doctorLine {
	t.Helper()
	var ans struct{ Findings []doctorLine }
	got := s.Run("", "doctor", "--json")
	if err := json.Unmarshal([]byte(got.Out), &ans); err != nil {
		t.Fatalf("doctor --json: %v: %+v", err, got)
	}
	for _, f := range ans.Findings {
		if f.Grade != "ok" && f.Mend == "" {
			t.Errorf("the doctor does not say what mends it: %+v", f)
		}
		if f.Check == check {
			if f.Grade == "fail" && got.Code != 1 {
				t.Errorf("doctor ends with %d, and %s fails", got.Code, f.Check)
			}
			return f
		}
	}
	return doctorLine{}
}
