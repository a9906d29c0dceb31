package derive

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/names/namestest"
	"github.com/synward/synward/agent/policy"
)

// apply makes a text's names and feeds the only ones.
func (r *rig) apply(text string, yes bool) (unchanged int, err error) {
	r.t.Helper()
	read, err := policy.Read(strings.NewReader(text), policy.ParseOptions{Name: "p", Now: r.clock.now(), Origin: policy.File, Subjects: true})
	if err != nil {
		r.t.Fatal(err)
	}
	all, err := r.prepare(r.t.Context(), r.h, read.Subjects, yes)
	if err != nil {
		return 0, err
	}
	_, err = r.h.Change(r.t.Context(), agent.Update{By: "test", Plan: func(now *policy.Set, u *agent.Update) (err error) {
		unchanged, err = all.Plan(now, u)
		return err
	}})
	if err == nil {
		all.Done()
	}
	return unchanged, err
}

// text is what an export says of names and feeds.
func (r *rig) text() string {
	r.t.Helper()
	subjects, err := r.inForce(r.t.Context(), r.h)
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	if err := policy.Format(&b, func(func(policy.Entry) bool) {}, policy.FormatOptions{Subjects: subjects}); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

func TestAnExportMakesTheSamePolicyElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a list")
	list(t, path, "203.0.113.0/24\n")
	z, addr := namestest.Serve(t, zone)
	r := start(t, newHost(), addr)
	office := allow("office.example")
	office.Entry.Ports, office.Entry.Expires = []uint16{25, 587}, time.Now().Add(time.Hour)
	r.must("/v1/names", office)
	r.must("/v1/names", allow("spf:partner.example"))
	drop := deny("drop", path)
	drop.Every = "36h"
	r.must("/v1/feeds", drop)
	const all = "192.0.2.10/32 198.51.100.0/24 !203.0.113.0/24 2001:db8::10/128"
	r.becomes(all)
	text := r.text()

	second := start(t, newHost(), addr)
	if _, err := second.apply(text, false); err != nil {
		t.Fatal(err)
	}
	second.becomes(all)
	if got := second.text(); got != text || !strings.Contains(text, `url="`+path+`" every=36h`) {
		t.Errorf("%s\nwant\n%s", got, text)
	}
	d := policy.Diff(r.h.Policy(), second.h.Policy())
	if !d.Empty() {
		t.Errorf("differs: %+v", d)
	}

	// What is in force is not asked for: no resolver and no list are needed.
	z.Break("office.example")
	os.Remove(path)
	before := second.h.changes
	if n, err := second.apply(text, false); err != nil || n != 4 || second.h.changes != before {
		t.Errorf("again: %d unchanged, %v, %d changes", n, err, second.h.changes-before)
	}
	noted := strings.Replace(text, `note="office"`, `note="the office"`, 1)
	if _, err := second.apply(noted, false); err != nil {
		t.Fatal(err)
	}
	for e := range second.h.Policy().Within(netip.MustParsePrefix("192.0.2.10/32")) {
		if e.Note != "the office" {
			t.Errorf("note %q", e.Note)
		}
	}
	if _, err := second.apply("", false); err != nil || second.h.prefixes() != "" || len(second.h.docs) != 0 {
		t.Errorf("without a line: %v, %s in force, %d documents", err, second.h.prefixes(), len(second.h.docs))
	}
}

func TestBadNamesAndFeedsOfAFileChangeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	list(t, path, "0.0.0.0/1\n")
	_, addr := namestest.Serve(t, zone)
	r := start(t, newHost(), addr)
	for name, c := range map[string]struct {
		text   string
		status int
		want   string
	}{
		"bad missing": {"allow office.example\nallow missing.example", 422, "p:2:7: missing.example: nothing behind it"},
		"bad file":    {"deny feed:x url=/no/such/list", 422, "p:1:6: feed:x: "},
		"bad place":   {"deny feed:x url=http://lists.example/", 400, "p:1:6: feed:x: \"http://lists.example/\": whoever"},
		"bad every":   {"deny feed:x url=/a every=1s", 400, "every 1s: write 1m to 30d"},
		"bad growth":  {"allow office.example\ndeny feed:x url=" + path, 409, "p:2:6: feed:x: 0.0.0.0/1 is wider than a /8; nothing changed: add --yes"},
	} {
		_, err := r.apply(c.text, false)
		if err == nil || control.StatusOf(err) != c.status || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %d with %q", name, err, c.status, c.want)
		}
		if r.h.prefixes() != "" || len(r.h.docs) != 0 {
			t.Errorf("%s: something changed", name)
		}
	}
	if _, err := r.apply("deny feed:x url="+path, true); err != nil {
		t.Error("with a yes:", err)
	}
}
