package policy_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
)

func keys(seq func(func(policy.Entry) bool)) (out []string) {
	for e := range seq {
		out = append(out, e.Key().String())
	}
	return out
}

func TestSetWalks(t *testing.T) {
	set := policy.NewSet(parse(t, `
		allow 2001:db8::/32 origin=operator
		deny 192.0.2.7 origin=learned
		allow 192.0.2.7 origin=operator
		deny 192.0.2.7 25 origin=operator
		deny 192.0.2.7 origin=feed:x
		allow 192.0.2.0/24 origin=file
		allow 0.0.0.0/0 origin=operator`)...)
	seven := []string{"operator deny 192.0.2.7/32", "operator allow 192.0.2.7/32", "feed:x deny 192.0.2.7/32", "learned deny 192.0.2.7/32"}
	for name, test := range map[string]struct{ got, want []string }{
		"all": {keys(set.All()), slices.Concat([]string{"operator allow 0.0.0.0/0", "file allow 192.0.2.0/24"}, seven, []string{"operator allow 2001:db8::/32"})},
		"covering": {keys(set.Covering(netip.MustParseAddr("192.0.2.7"))),
			slices.Concat(seven, []string{"file allow 192.0.2.0/24", "operator allow 0.0.0.0/0"})},
		"covering with a zone": {keys(set.Covering(netip.MustParseAddr("2001:db8::1%eth0"))), []string{"operator allow 2001:db8::/32"}},
		"covering mapped":      {keys(set.Covering(netip.MustParseAddr("::ffff:192.0.2.7"))), nil},
		"within":               {keys(set.Within(netip.MustParsePrefix("192.0.0.0/16"))), slices.Concat([]string{"file allow 192.0.2.0/24"}, seven)},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("%s: %q\nwant %q", name, test.got, test.want)
		}
	}
	if set.Len() != 7 {
		t.Errorf("length %d", set.Len())
	}
}

func TestSetChanges(t *testing.T) {
	set := policy.NewSet(parse(t, "allow 192.0.2.7 note=a origin=operator")...)
	clone := set.Clone()
	e := parse(t, "allow 192.0.2.7 note=b origin=operator")[0]
	if old, replaced := clone.Put(e); !replaced || old.Note != "a" || clone.Len() != 1 {
		t.Errorf("replaced %v %v, length %d", replaced, old, clone.Len())
	}
	set.Put(parse(t, "allow 10.0.0.0/8 origin=operator")[0])
	if got, _ := set.Get(e.Key()); got.Note != "a" {
		t.Errorf("a change of the clone came through: %v", got)
	}
	if got := clone.Len(); got != 1 {
		t.Errorf("a change came through to the clone: length %d", got)
	}
	if old, removed := clone.Remove(e.Key()); !removed || old.Note != "b" || clone.Len() != 0 {
		t.Errorf("removed %v %v, length %d", removed, old, clone.Len())
	}
	if _, removed := clone.Remove(e.Key()); removed {
		t.Error("removed twice")
	}
	if _, removed := clone.Remove(policy.Key{}); removed {
		t.Error("removed nothing")
	}
	if _, found := clone.Get(e.Key()); found || set.Len() != 2 {
		t.Errorf("found after its removal, or the first set changed (length %d)", set.Len())
	}
}

func TestAddRefusesContradictions(t *testing.T) {
	set := policy.NewSet(parse(t, "allow 192.0.2.0/24 25,587 origin=operator\ndeny 10.0.0.0/8 expires=2026-07-01T12:10:00Z origin=operator")...)
	for text, want := range map[string]string{
		"deny 192.0.2.0/24 587 origin=operator": "deny 192.0.2.0/24 contradicts the allow of the same prefix on port 587: remove that first (synward allow remove 192.0.2.0/24), or give the two different ports",
		"deny 192.0.2.0/24 origin=operator":     "on port 25, 587",
		"allow 10.0.0.0/8 origin=operator":      "on every port",
		"deny 192.0.2.0/24 465 origin=operator": "",
		"deny 192.0.2.0/25 origin=operator":     "",
		"deny 192.0.2.0/24 origin=file":         "",
		"allow 192.0.2.0/24 origin=operator":    "",
	} {
		_, _, err := set.Clone().Add(start, parse(t, text)[0])
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if _, _, err := set.Add(start.Add(10*time.Minute), parse(t, "allow 10.0.0.0/8 origin=operator")[0]); err != nil {
		t.Errorf("beside an expired one: %v", err)
	}
}

func TestNextExpiry(t *testing.T) {
	set := policy.NewSet(parse(t, `
		allow 10.0.0.1 expires=2026-07-01T12:00:00Z origin=operator
		allow 10.0.0.2 expires=2026-07-01T12:05:00Z origin=operator
		allow 10.0.0.3 expires=2026-07-01T12:04:00Z origin=operator
		allow 10.0.0.4 origin=operator`)...)
	if got := set.NextExpiry(start); !got.Equal(start.Add(4 * time.Minute)) {
		t.Errorf("next expiry %v", got)
	}
	if got := set.NextExpiry(start.Add(time.Hour)); !got.IsZero() {
		t.Errorf("after the last: %v", got)
	}
}

func TestDiff(t *testing.T) {
	from := parse(t, "allow 10.0.0.1 note=a origin=operator\nallow 10.0.0.2 origin=operator\nallow 10.0.0.3 25 origin=operator")
	to := parse(t, "allow 10.0.0.1 note=b origin=operator\nallow 10.0.0.3 25 origin=operator\ndeny 10.0.0.3 465 origin=operator")
	to[1].By, to[1].At = "uid 0", start
	c := policy.Diff(policy.NewSet(from...), policy.NewSet(to...))
	if len(c.Added) != 1 || c.Added[0].Action != policy.Deny || len(c.Changed) != 1 || c.Changed[0].New.Note != "b" ||
		len(c.Removed) != 1 || c.Removed[0].Prefix != from[1].Prefix {
		t.Errorf("changes %+v", c)
	}
	if len(c.Prefixes()) != 3 || c.Empty() || !policy.Diff(policy.NewSet(to...), policy.NewSet(to...)).Empty() {
		t.Errorf("prefixes %v, empty %v", c.Prefixes(), c.Empty())
	}
}

func TestNew(t *testing.T) {
	ttl := start.In(time.FixedZone("x", 3600)).Add(time.Millisecond)
	e, warning, err := policy.New(policy.Entry{
		Action: policy.Allow, Origin: policy.Operator, Prefix: netip.MustParsePrefix("192.0.2.9/24"),
		Ports: []uint16{587, 25, 587}, Expires: ttl,
	}, known)
	if err != nil || warning != "192.0.2.9/24 has host bits set; taken as 192.0.2.0/24" {
		t.Errorf("warning %q, error %v", warning, err)
	}
	if e.Prefix.String() != "192.0.2.0/24" || !slices.Equal(e.Ports, []uint16{25, 587}) || e.Expires != start.Add(time.Second) {
		t.Errorf("entry %+v", e)
	}
	if !e.Expired(start.Add(time.Second)) || e.Expired(start) {
		t.Error("expired at the wrong moment")
	}
	good := policy.Entry{Action: policy.Allow, Origin: policy.Operator, Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	for name, bad := range map[string]func(*policy.Entry){
		"no prefix":          func(e *policy.Entry) { e.Prefix = netip.Prefix{} },
		"no origin":          func(e *policy.Entry) { e.Origin = "" },
		"no action":          func(e *policy.Entry) { e.Action = "" },
		"mapped":             func(e *policy.Entry) { e.Prefix = netip.MustParsePrefix("::ffff:192.0.2.0/120") },
		"feed's name":        func(e *policy.Entry) { e.Feed = "spam" },
		"feed without name":  func(e *policy.Entry) { e.Origin = policy.Feed },
		"feed of bad name":   func(e *policy.Entry) { e.Origin, e.Feed = policy.Feed, "a b" },
		"port 0":             func(e *policy.Entry) { e.Ports = []uint16{0} },
		"port not protected": func(e *policy.Entry) { e.Ports = []uint16{26} },
		"odd rate":           func(e *policy.Entry) { e.Rate = &policy.Rate{N: 1, Period: time.Millisecond} },
		"expiry in 1969":     func(e *policy.Entry) { e.Expires = time.Unix(-1, 0) },
		"quote in note":      func(e *policy.Entry) { e.Note = `"` },
		"line in by":         func(e *policy.Entry) { e.By = "a\nb" },
	} {
		e := good
		bad(&e)
		if _, _, err := policy.New(e, known); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, _, err := policy.New(good, known); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
