package derive

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// list writes a list that a feed is to read, newer than the one before.
func list(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func deny(name, url string) control.AddFeed {
	return control.AddFeed{Name: name, URL: url, Entry: policy.Entry{Action: policy.Deny}}
}

func TestAFeedFollowsItsList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drop.txt")
	list(t, path, "192.0.2.0/24 ; SBL1\n198.51.100.7\n")
	h := newHost()
	r := start(t, h, "127.0.0.1:1")
	ans := r.must("/v1/feeds", deny("drop", path))
	r.becomes("!192.0.2.0/24 !198.51.100.7/32")
	if len(ans.Added) != 2 || ans.Added[0].Feed != "drop" || ans.Added[0].Origin != policy.Feed {
		t.Errorf("added %+v", ans.Added)
	}
	r.clock.pass(2 * time.Hour)
	r.eventually("asked again", func() bool {
		l, _ := r.list(t.Context(), h)
		return len(l) == 1 && l[0].Good.Equal(r.clock.now())
	})
	if h.changes != 1 {
		t.Errorf("%d changes, though the list is the same", h.changes)
	}
	list(t, path, "192.0.2.0/24\n203.0.113.0/24\n203.0.113.9\n")
	r.clock.pass(2 * time.Hour)
	r.becomes("!192.0.2.0/24 !203.0.113.0/24")
	// Another action for the same list leaves nothing of the old one.
	again := deny("drop", path)
	again.Entry.Action = policy.Allow
	r.must("/v1/feeds", again)
	r.becomes("192.0.2.0/24 203.0.113.0/24")
}

func TestABadListChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	const good = "192.0.2.0/24\n"
	list(t, path, good)
	r := start(t, newHost(), "127.0.0.1:1")
	r.must("/v1/feeds", deny("drop", path))
	for what, spoil := range map[string]func(){
		"no prefix in it":              func() { list(t, path, "# moved\n") },
		"lines are bad":                func() { list(t, path, "<html>\n<p>sorry</p>\n") },
		"no such file":                 func() { os.Remove(path) },
		"0.0.0.0/0 is wider":           func() { list(t, path, "0.0.0.0/0\n") },
		"4 new prefixes, more than 3":  func() { list(t, path, good+"10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4\n") },
		"line 2 is longer than 4096 b": func() { list(t, path, good+strings.Repeat("1", 5000)) },
	} {
		spoil()
		r.clock.pass(2 * time.Hour)
		r.says("feed drop", what)
		if got := r.h.prefixes(); got != "!192.0.2.0/24" {
			t.Errorf("%s: %s in force", what, got)
		}
		list(t, path, good)
		r.clock.pass(2 * time.Hour)
		r.says("feed drop", "")
	}
	list(t, path, "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4\n")
	r.clock.pass(2 * time.Hour)
	r.says("feed drop", "accept it with: synward feed refresh drop --yes")
	r.must("/v1/derived/refresh", control.Refresh{Feeds: true, Names: []string{"drop"}, Yes: true})
	r.becomes("!10.0.0.1/32 !10.0.0.2/32 !10.0.0.3/32 !10.0.0.4/32")
}

func TestBadFeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	list(t, path, "192.0.2.0/24\n")
	relay, often := deny("x", path), deny("x", path)
	relay.Entry = policy.Entry{Action: policy.Allow, Relay: true}
	often.Every = "1s"
	for name, c := range map[string]struct {
		req    control.AddFeed
		status int
		want   string
	}{
		"bad name":   {deny("a b", path), 400, "feed name"},
		"bad scheme": {deny("x", "http://lists.example/x"), 400, "use https"},
		"bad place":  {deny("x", "list"), 400, "absolute path"},
		"bad file":   {deny("x", path+".none"), 422, "no such file"},
		"bad relay":  {relay, 400, "never has that right"},
		"bad action": {control.AddFeed{Name: "x", URL: path}, 400, "action"},
		"bad every":  {often, 400, "1m to 30d"},
	} {
		r := start(t, newHost(), "127.0.0.1:1")
		_, err := r.post("/v1/feeds", c.req)
		if err == nil || control.StatusOf(err) != c.status || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %d with %q", name, err, c.status, c.want)
		}
		if r.h.prefixes() != "" || len(r.h.docs) > 0 {
			t.Errorf("%s: something changed", name)
		}
	}
}

func TestFeedsOutliveTheAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	list(t, path, "192.0.2.0/24\n")
	h := newHost()
	start(t, h, "127.0.0.1:1").must("/v1/feeds", deny("drop", path))
	list(t, path, "198.51.100.0/24\n")
	second := start(t, h, "127.0.0.1:1")
	second.becomes("!198.51.100.0/24")
	second.must("/v1/feeds/remove", control.RemoveFeeds{Names: []string{"drop"}})
	if h.prefixes() != "" || len(h.docs) != 0 {
		t.Errorf("after the end: %s in force, %d documents", h.prefixes(), len(h.docs))
	}
}

func TestAFeedThatWasUndoneStaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	list(t, path, "192.0.2.0/24\n")
	h := newHost()
	r := start(t, h, "127.0.0.1:1")
	ans := r.must("/v1/feeds", deny("drop", path))
	h.edit(func(s *policy.Set) { s.Remove(ans.Added[0].Key()) })
	r.clock.pass(24 * time.Hour)
	r.says("feed drop", "taken out by an undo")
	if got := h.prefixes(); got != "" {
		t.Errorf("%s in force again", got)
	}
	r.must("/v1/derived/refresh", control.Refresh{Feeds: true, Names: []string{"drop"}})
	r.becomes("!192.0.2.0/24")
	r.says("feed drop", "")
}

func TestEntriesWithoutTheirFeedAreSaid(t *testing.T) {
	h := newHost()
	r := start(t, h, "127.0.0.1:1")
	h.edit(func(s *policy.Set) {
		s.Put(policy.Entry{Action: policy.Deny, Prefix: samplePrefix(), Origin: policy.Feed, Feed: "lost"})
	})
	r.says("feed lost", "its place is not known any more")
	r.must("/v1/feeds/remove", control.RemoveFeeds{Names: []string{"lost"}})
	r.becomes("")
	r.says("feed lost", "")
}
