package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/synward/synward/test/stage"
)

// TestCommands walks through the contract of the command line with an agent.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	t.Run("flags stand anywhere", func(t *testing.T) { flagsAnywhere(t, s) })
	t.Run("dry run changes nothing", func(t *testing.T) { dryRun(t, s) })
	t.Run("all or nothing", func(t *testing.T) { allOrNothing(t, s) })
	t.Run("idempotent", func(t *testing.T) { idempotent(t, s) })
	t.Run("stdin", func(t *testing.T) { fromStdin(t, s) })
	t.Run("host bits", func(t *testing.T) { hostBits(t, s) })
	t.Run("policy as text", func(t *testing.T) { policyText(t, s) })
	t.Run("kill", func(t *testing.T) { killConnections(t, s) })
	t.Run("json keys", func(t *testing.T) { jsonKeys(t, s) })
}

// prefixes are those of the allow entries.
func prefixes(t *testing.T, s *stage.Stage) string {
	t.Helper()
	var list struct{ Entries []struct{ Prefix string } }
	ask(t, s, &list, "allow", "list")
	var out []string
	for _, e := range list.Entries {
		out = append(out, e.Prefix)
	}
	return strings.Join(out, " ")
}

func flagsAnywhere(t *testing.T, s *stage.Stage) {
	for _, args := range [][]string{
		{"allow", "add", "--dry-run", "192.0.2.0/24"},
		{"allow", "add", "192.0.2.0/24", "--dry-run"},
		{"allow", "add", "192.0.2.0/24", "--ports", "587", "--dry-run", "198.18.0.0/15"},
		{"allow", "--config", s.Config(), "add", "192.0.2.0/24", "--dry-run=true"},
	} {
		if out := must(t, s, args...); !strings.Contains(out, "would be added") {
			t.Errorf("%v: %s", args, out)
		}
	}
	if got := prefixes(t, s); got != "" {
		t.Errorf("dry runs have added %s", got)
	}
	must(t, s, "allow", "add", "192.0.2.10", "--ports", "587")
	if got := verdict(t, s, stage.ClientAddr, 587) + verdict(t, s, stage.ClientAddr, 25); got != "passdrop" {
		t.Errorf("--ports after the prefix: 587 and 25 are %s", got)
	}
	must(t, s, "allow", "remove", "192.0.2.10")
	// after -- nothing is a flag, so this is a bad prefix and no dry run
	if r := s.Run("", "allow", "add", "192.0.2.0/24", "--", "--dry-run"); r.Code != 2 || prefixes(t, s) != "" {
		t.Errorf("after --: %+v", r)
	}
}

func dryRun(t *testing.T, s *stage.Stage) {
	must(t, s, "allow", "add", "192.0.2.0/24")
	must(t, s, "user", "add", "carol")
	for _, args := range [][]string{
		{"allow", "remove", "192.0.2.0/24"}, {"deny", "add", "192.0.2.10"}, {"deny", "add", "--kill", "192.0.2.10"},
		{"user", "remove", "carol"}, {"user", "add", "dave"},
	} {
		if out := must(t, s, append(args, "--dry-run")...); !strings.Contains(out, "would be") {
			t.Errorf("%v --dry-run says %q", args, out)
		}
	}
	if r := s.Run("", "policy", "apply", "-", "--dry-run"); r.Code != 0 || !strings.Contains(r.Out, "would be removed") {
		t.Errorf("policy apply --dry-run: %+v", r)
	}
	if got := verdict(t, s, stage.ClientAddr, 587); got != "pass" {
		t.Errorf("after dry runs the kernel says %s", got)
	}
	if users := must(t, s, "user", "list"); !strings.Contains(users, "carol") || strings.Contains(users, "dave") {
		t.Errorf("after dry runs: %s", users)
	}
	heard(t, knock{s.Client, "", stage.EdgeForClient, "587", "greeting"})
	must(t, s, "user", "remove", "carol")
	must(t, s, "allow", "remove", "192.0.2.0/24")
}

func allOrNothing(t *testing.T, s *stage.Stage) {
	many := []string{"allow", "add"}
	for i := range 50 {
		many = append(many, fmt.Sprintf("198.18.%d.0/24", i))
	}
	for _, bad := range []string{"192.0.2.0/33", "2001:db8::/129", "::ffff:192.0.2.1", "fe80::1%eth0", "example.net", ""} {
		r := s.Run("", append(many, bad)...)
		if r.Code != 2 || strings.Count(r.Err, "\n") != 1 || r.Out != "" {
			t.Errorf("with %q among them: %+v", bad, r)
		}
	}
	if r := s.Run("", append(many, "--ports", "25,993")...); r.Code != 2 || !strings.Contains(r.Err, "993") {
		t.Errorf("with a port that is not protected: %+v", r)
	}
	if got := prefixes(t, s); got != "" {
		t.Errorf("half applied: %s", got)
	}
	if got := verdict(t, s, "198.18.0.1", 25); got != "drop" {
		t.Errorf("half applied in the kernel: %s", got)
	}
}

func idempotent(t *testing.T, s *stage.Stage) {
	type change struct {
		Added, Changed, Removed []any
		Unchanged               int
		Missing                 []string
	}
	var first, second, changed, gone, again change
	ask(t, s, &first, "allow", "add", "192.0.2.0/24", "--note", "x")
	ask(t, s, &second, "allow", "add", "192.0.2.0/24", "--note", "x")
	ask(t, s, &changed, "allow", "add", "192.0.2.0/24", "--note", "y")
	ask(t, s, &gone, "allow", "remove", "192.0.2.0/24")
	ask(t, s, &again, "allow", "remove", "192.0.2.0/24")
	if len(first.Added) != 1 || len(second.Added) != 0 || second.Unchanged != 1 || len(changed.Changed) != 1 ||
		len(gone.Removed) != 1 || len(again.Removed) != 0 || len(again.Missing) != 1 {
		t.Errorf("added %+v, again %+v, changed %+v, removed %+v, again %+v", first, second, changed, gone, again)
	}
}

func fromStdin(t *testing.T, s *stage.Stage) {
	r := s.Run("# ours\n192.0.2.10  2001:db8:c::10\n\n198.18.0.0/15 # lab\n", "allow", "add", "-", "--note", "list")
	if got := prefixes(t, s); r.Code != 0 || got != "192.0.2.10/32 198.18.0.0/15 2001:db8:c::10/128" {
		t.Errorf("%+v: %s", r, got)
	}
	r = s.Run("192.0.2.1\nnonsense\n", "allow", "remove", "-")
	if r.Code != 2 || !strings.Contains(r.Err, "stdin:2:") {
		t.Errorf("a bad line: %+v", r)
	}
	must(t, s, "allow", "remove", "192.0.2.10", "2001:db8:c::10", "198.18.0.0/15")
}

func hostBits(t *testing.T, s *stage.Stage) {
	r := s.Run("", "allow", "add", "192.0.2.77/24")
	if r.Code != 0 || !strings.Contains(r.Err, "192.0.2.77/24") || !strings.Contains(r.Err, "192.0.2.0/24") || strings.Contains(r.Out, ".77") {
		t.Errorf("host bits: %+v", r)
	}
	must(t, s, "allow", "remove", "192.0.2.0/24")
}

func policyText(t *testing.T, s *stage.Stage) {
	text := `allow 192.0.2.0/24 465,587 rate=10/s note="Acme"
allow 2001:db8:c::/64
deny 192.0.2.66 note="stolen laptop"
`
	if r := s.Run(text, "policy", "apply", "-"); r.Code != 0 {
		t.Fatalf("apply: %+v", r)
	}
	out := must(t, s, "policy", "export")
	if r := s.Run(out, "policy", "diff", "-"); r.Code != 0 || !strings.Contains(r.Out, "nothing to change") {
		t.Errorf("the export differs from itself: %+v\n%s", r, out)
	}
	r := s.Run("allow 192.0.2.0/24\nallow 198.18.0.0/15 rate=fast\n", "policy", "apply", "-")
	if r.Code != 2 || !strings.Contains(r.Err, "stdin:2:") {
		t.Errorf("a bad line: %+v", r)
	}
	if again := must(t, s, "policy", "export"); again != out {
		t.Errorf("a bad file has changed the policy:\n%s", again)
	}
	if r := s.Run("", "policy", "apply", "-"); r.Code != 0 || prefixes(t, s) != "" {
		t.Errorf("an empty policy: %+v", r)
	}
}

func killConnections(t *testing.T, s *stage.Stage) {
	must(t, s, "allow", "add", "192.0.2.0/24")
	c, err := s.Client.Dial("", edge("587"), soon)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := make([]byte, 64)
	if _, err := c.Read(hello); err != nil {
		t.Fatal(err)
	}
	var left, killed struct {
		Killed int
		CutOff []any `json:"cut_off"`
	}
	ask(t, s, &left, "deny", "add", "192.0.2.10")
	if _, err := c.Write([]byte("NOOP\r\n")); err != nil || len(left.CutOff) != 1 || left.Killed != 0 {
		t.Errorf("without --kill: %v, %+v", err, left)
	}
	if n, err := c.Read(hello); err != nil || n == 0 {
		t.Errorf("an open connection ends without --kill: %v", err)
	}
	must(t, s, "deny", "remove", "192.0.2.10")
	ask(t, s, &killed, "deny", "add", "192.0.2.10", "--kill")
	if killed.Killed != 1 {
		t.Errorf("with --kill: %+v", killed)
	}
	if _, err := c.Read(hello); err == nil {
		t.Error("the connection goes on after --kill")
	}
	must(t, s, "deny", "remove", "192.0.2.10")
	must(t, s, "allow", "remove", "192.0.2.0/24")
}

// keys are those that scripts rely on: they may only grow.
var keys = []struct {
	args string
	want string
}{
	{"allow add 192.0.2.0/24 --ttl 1h --ports 587 --rate 5/m --burst 3 --max-conns 2 --note n", "dry_run added changed removed unchanged rules.added rules.updated rules.removed " +
		"added.action added.prefix added.ports added.max_conns added.rate added.burst added.expires added.origin added.note added.by added.at"},
	{"allow list", "entries.prefix entries.hits entries.expires entries.last_seen"},
	{"deny list", "entries"},
	{"explain 192.0.2.10 --port 587", "source agree verdicts.port verdicts.verdict verdicts.reason verdicts.entry_id verdicts.entry.prefix " +
		"verdicts.policy verdicts.agree verdicts.chain.entry.prefix verdicts.chain.won verdicts.chain.why " +
		"verdicts.caps.connections verdicts.caps.open verdicts.caps.rate verdicts.caps.burst"},
	{"status", "agent.version agent.pid agent.since agent.entries agent.allow agent.deny agent.expired agent.next_expiry agent.last_sync " +
		"filter.loaded filter.mode filter.interfaces.name filter.interfaces.mode filter.ports.port filter.ports.default " +
		"filter.counters.port filter.counters.reason filter.counters.verdict filter.counters.packets filter.connections " +
		"relay.running relay.pid relay.since relay.restarts relay.own.ready relay.own.sessions relay.own.accepted relay.own.refused " +
		"relay.own.auth_failures relay.own.unauthorized relay.own.listeners relay.own.queue.items relay.own.sandbox.no_new_privs"},
	{"events", "time source port reason interface count"},
	{"user list", "users.name users.disabled users.created"},
	{"user disable alice", "name changed dry_run warning"},
	{"queue list", ""},
	{"policy export", "text"},
	{"config check", "file ok"},
	{"allow remove 192.0.2.0/24 192.0.2.99", "removed.prefix missing"},
}

func jsonKeys(t *testing.T, s *stage.Stage) {
	must(t, s, "user", "add", "alice")
	for _, k := range keys {
		out := must(t, s, append(strings.Fields(k.args), "--json")...)
		if k.args == "events" {
			out, _, _ = strings.Cut(out, "\n") // one document a line
		}
		var doc any
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Errorf("synward %s --json: %v\n%s", k.args, err, out)
			continue
		}
		for _, path := range strings.Fields(k.want) {
			if !has(doc, strings.Split(path, ".")) {
				t.Errorf("synward %s --json: no key %s in\n%s", k.args, path, out)
			}
		}
		if strings.HasPrefix(k.args, "allow add") { // for the hits and the events
			heard(t, knock{s.Client, "", stage.EdgeForClient, "587", "greeting"}, knock{s.Client, "", stage.EdgeForClient, "25", "silence"})
			eventually(t, "the drop is an event", func() bool { return must(t, s, "events", "--source", "192.0.2.10") != "" })
		}
	}
}

// has says whether a document has a key, in the first element of every list.
func has(doc any, path []string) bool {
	if list, ok := doc.([]any); ok && len(path) > 0 {
		return len(list) > 0 && has(list[0], path)
	}
	if len(path) == 0 {
		return true
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return false
	}
	v, ok := m[path[0]]
	return ok && has(v, path[1:])
}

// TestBadArguments: one line, the right exit status, nothing changed.
func TestBadArguments(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	before := must(t, s, "policy", "export")
	for _, bad := range []struct {
		args string
		code int
		says string
	}{
		{"allow add 192.0.2.300", 2, "192.0.2.300"},
		{"allow add 192.0.2.0/24/24", 2, "192.0.2.0/24/24"},
		{"allow add 010.0.0.1", 2, "010.0.0.1"},
		{"allow add", 2, "PREFIX"},
		{"allow", 2, "add"},
		{"allow ad 192.0.2.0/24", 2, "ad"},
		{"allow add 192.0.2.0/24 --ports 0", 2, "0"},
		{"allow add 192.0.2.0/24 --ports 65536", 2, "65536"},
		{"allow add 192.0.2.0/24 --ports 25;587", 2, "25;587"},
		{"allow add 192.0.2.0/24 --ports 22", 2, "22"},
		{"allow add 192.0.2.0/24 --ttl 5", 2, "5"},
		{"allow add 192.0.2.0/24 --ttl -1h", 2, "--ttl"},
		{"allow add 192.0.2.0/24 --ttl 0s", 2, "0s"},
		{"allow add 192.0.2.0/24 --rate fast", 2, "fast"},
		{"allow add 192.0.2.0/24 --rate 5", 2, "5/s"},
		{"allow add 192.0.2.0/24 --burst 0", 2, "burst"},
		{"allow add 192.0.2.0/24 --max-conns many", 2, "many"},
		{"allow add 0.0.0.0/0 --relay", 2, "open relay"},
		{"allow add 192.0.2.0/24 --bogus", 2, "--bogus"},
		{"allow add 192.0.2.0/24 --note", 2, "--note"},
		{"deny add 192.0.2.0/24 --rate 5/s", 2, "--rate"},
		{"allow list extra", 2, "extra"},
		{"allow list --covering 192.0.2.0/24", 2, "192.0.2.0/24"},
		{"explain", 2, "ADDR"},
		{"explain nobody", 2, "nobody"},
		{"explain 192.0.2.1 --port 99999", 2, "99999"},
		{"explain 192.0.2.1 --port 80", 2, "80"},
		{"events --since yesterday", 2, "yesterday"},
		{"events --source nobody", 2, "nobody"},
		{"user add", 2, "NAME"},
		{"user remove bad/name", 2, "bad/name"},
		{"user passwd nobody", 1, "nobody"},
		{"queue show nosuch", 1, "nosuch"},
		{"queue retry nosuch", 1, "nosuch"},
		{"policy apply /nonexistent", 1, "/nonexistent"},
		{"unload", 1, "stop it first"},
		{"frobnicate", 2, "frobnicate"},
		{"status --config /nonexistent.toml", 1, "/nonexistent.toml"},
		{"status --socket", 2, "--socket"},
	} {
		r := s.Run("", strings.Fields(bad.args)...)
		if r.Code != bad.code || !strings.Contains(r.Err, bad.says) || strings.Count(r.Err, "\n") != 1 ||
			!strings.HasPrefix(r.Err, "synward: ") || r.Out != "" {
			t.Errorf("synward %s: exit status %d (want %d), stdout %q, stderr %q (want one line that says %q)",
				bad.args, r.Code, bad.code, r.Out, r.Err, bad.says)
		}
	}
	must(t, s, "allow", "add", "192.0.2.0/24")
	if r := s.Run("", "deny", "add", "192.0.2.0/24"); r.Code != 1 || !strings.Contains(r.Err, "contradicts") {
		t.Errorf("an allow and a deny of one prefix: %+v", r)
	}
	must(t, s, "allow", "remove", "192.0.2.0/24")
	if after := must(t, s, "policy", "export"); after != before {
		t.Errorf("bad commands have changed the policy:\n%s", after)
	}
}

// TestWithoutAgent: what can be told is told, the rest is one line.
func TestWithoutAgent(t *testing.T) {
	t.Parallel()
	s := set(t, false)
	for _, args := range []string{"allow add 192.0.2.0/24", "allow list", "explain 192.0.2.1", "events", "user list", "queue list", "policy export"} {
		r := s.Run("", strings.Fields(args)...)
		if r.Code != 1 || strings.Count(r.Err, "\n") != 1 || !strings.Contains(r.Err, "systemctl start synward") {
			t.Errorf("synward %s: %+v", args, r)
		}
	}
	r := s.Run("", "status")
	if r.Code != 0 || !strings.Contains(r.Out, "down") || !strings.Contains(r.Err, "no filter is loaded") {
		t.Errorf("status: %+v", r)
	}
	if r := s.Run("", "unload"); r.Code != 0 || !strings.Contains(r.Out, "no filter is loaded") {
		t.Errorf("unload of nothing: %+v", r)
	}
	if got := stage.Knock(s.Stranger, net.JoinHostPort(stage.EdgeForStranger, "25"), soon); got != "refused" {
		t.Errorf("without a filter a closed port says %q", got)
	}
}
