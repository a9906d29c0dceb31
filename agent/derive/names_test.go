package derive

import (
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/names/namestest"
	"github.com/synward/synward/agent/policy"
)

func allow(names ...string) control.AddNames {
	return control.AddNames{Names: names, Entry: policy.Entry{Action: policy.Allow, Note: "office"}}
}

const zone = `
office.example.  60 IN A   192.0.2.10
office.example.  60 IN AAAA 2001:db8::10
partner.example. 60 IN TXT "v=spf1 ip4:198.51.100.0/24 exists:%{i}.x.example -all"
`

func TestANameFollowsItsAddresses(t *testing.T) {
	z, addr := namestest.Serve(t, zone)
	r := start(t, newHost(), addr)
	ans := r.must("/v1/names", allow("Office.Example.", "spf:partner.example"))
	r.becomes("192.0.2.10/32 198.51.100.0/24 2001:db8::10/128")
	if len(ans.Added) != 3 || ans.Added[0].Name != "office.example" || ans.Added[0].Note != "office" || ans.Added[0].Origin != policy.Operator {
		t.Errorf("added %+v", ans.Added)
	}
	if len(ans.Warnings) != 1 || !strings.Contains(ans.Warnings[0], "exists:%{i}.x.example") {
		t.Errorf("warnings %q, want what was not expanded", ans.Warnings)
	}
	z.Set(t, strings.Replace(zone, "192.0.2.10", "192.0.2.77", 1))
	asked := z.Asked("A", "office.example")
	r.clock.pass(50 * time.Second) // less than the TTL, by more than the jitter
	time.Sleep(20 * time.Millisecond)
	if z.Asked("A", "office.example") != asked {
		t.Error("asked again before the TTL was over")
	}
	r.clock.pass(15 * time.Second)
	r.becomes("192.0.2.77/32 198.51.100.0/24 2001:db8::10/128")
	for e := range r.h.Policy().All() {
		if e.Note != "office" {
			t.Errorf("%s has lost its note", e.Prefix)
		}
	}
}

func TestTheLastGoodSetStays(t *testing.T) {
	z, addr := namestest.Serve(t, zone)
	h := newHost()
	r := start(t, h, addr)
	r.must("/v1/names", allow("office.example"))
	const good = "192.0.2.10/32 2001:db8::10/128"
	for what, spoil := range map[string]func(){
		"SERVFAIL":       func() { z.Break("office.example") },
		"nothing behind": func() { z.Set(t, "other.example. 60 IN A 192.0.2.1") },
	} {
		spoil()
		r.clock.pass(time.Hour)
		r.says("allow office.example", what)
		r.says("allow office.example", "its last good 2 prefixes stay")
		if got := h.prefixes(); got != good {
			t.Errorf("%s: %s in force, want %s", what, got, good)
		}
		z.Mend()
		z.Set(t, zone)
		r.clock.pass(time.Hour)
		r.says("allow office.example", "")
	}
	list, err := r.list(t.Context(), h)
	if err != nil || len(list) != 1 || list[0].Prefixes != 2 || list[0].Kind != control.KindHost || list[0].Good.IsZero() {
		t.Errorf("listed %+v, %v", list, err)
	}
}

// A new agent with the same entries and no resolver.
func TestTheLastGoodSetOutlivesTheAgent(t *testing.T) {
	_, addr := namestest.Serve(t, zone)
	h := newHost()
	start(t, h, addr).must("/v1/names", allow("office.example"))
	second := start(t, h, "127.0.0.1:1") // refuses at once
	second.says("allow office.example", "its last good 2 prefixes stay")
	if got := h.prefixes(); got != "192.0.2.10/32 2001:db8::10/128" {
		t.Errorf("%s in force", got)
	}
}

func TestGrowthNeedsAYes(t *testing.T) {
	z, addr := namestest.Serve(t, zone)
	h := newHost()
	r := start(t, h, addr)
	r.must("/v1/names", allow("spf:partner.example"))
	grown := strings.Replace(zone, "ip4:198.51.100.0/24", "ip4:198.51.100.0/24 ip4:10.0.0.0/24 ip4:10.0.2.0/24 ip4:10.0.4.0/24 ip4:10.0.6.0/24", 1)
	for what, records := range map[string]string{
		"4 new prefixes, more than 3":    grown,
		"0.0.0.0/1 is wider than a /8":   strings.Replace(zone, "198.51.100.0/24", "0.0.0.0/1", 1),
		"wider than an IPv4 /8 together": strings.Replace(zone, "ip4:198.51.100.0/24", "ip4:10.0.0.0/9 ip4:11.0.0.0/9 ip4:12.0.0.0/9", 1),
	} {
		z.Set(t, records)
		r.clock.pass(time.Hour)
		r.says("allow spf:partner.example", what)
		r.says("allow spf:partner.example", "synward allow refresh spf:partner.example --yes")
		if got := h.prefixes(); got != "198.51.100.0/24" {
			t.Errorf("%s: %s in force", what, got)
		}
	}
	z.Set(t, grown)
	refresh := control.Refresh{Action: policy.Allow, Names: []string{"spf:partner.example"}}
	if _, err := r.post("/v1/derived/refresh", refresh); control.StatusOf(err) != 409 {
		t.Errorf("without a yes: %v", err)
	}
	refresh.Yes = true
	r.must("/v1/derived/refresh", refresh)
	r.becomes("10.0.0.0/24 10.0.2.0/24 10.0.4.0/24 10.0.6.0/24 198.51.100.0/24")
	r.says("allow spf:partner.example", "")
}

func TestBadNamesChangeNothing(t *testing.T) {
	_, addr := namestest.Serve(t, zone+"wide.example. 60 IN TXT \"v=spf1 ip4:0.0.0.0/0 -all\"\n")
	r := start(t, newHost(), addr)
	relay, port, deny := allow("spf:partner.example"), allow("office.example"), allow("office.example")
	relay.Entry.Relay, port.Entry.Ports, deny.Entry = true, []uint16{26}, policy.Entry{Action: policy.Deny, Relay: true}
	for name, c := range map[string]struct {
		req    control.AddNames
		status int
		want   string
	}{
		"bad one of two":  {allow("office.example", "missing.example"), 422, "missing.example: nothing behind it"},
		"bad name":        {allow("office..example"), 400, "office..example"},
		"bad relay right": {relay, 400, "shared with strangers"},
		"bad port":        {port, 400, "port 26"},
		"bad deny":        {deny, 400, "deny entry takes no"},
		"bad width":       {allow("spf:wide.example"), 409, "0.0.0.0/0 is wider than a /8; nothing changed: add --yes"},
		"bad nothing":     {allow(), 400, "no names"},
	} {
		_, err := r.post("/v1/names", c.req)
		if err == nil || control.StatusOf(err) != c.status || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %d with %q", name, err, c.status, c.want)
		}
		if got := r.h.prefixes(); got != "" {
			t.Errorf("%s: %s in force", name, got)
		}
	}
}

func TestNamesAreRemovedWhole(t *testing.T) {
	z, addr := namestest.Serve(t, zone)
	r := start(t, newHost(), addr)
	r.must("/v1/names", allow("office.example"))
	dry := control.RemoveNames{Action: policy.Allow, Names: []string{"office.example"}, DryRun: true}
	if ans := r.must("/v1/names/remove", dry); len(ans.Removed) != 2 || r.h.prefixes() == "" {
		t.Errorf("dry run: %+v, in force %s", ans, r.h.prefixes())
	}
	ans := r.must("/v1/names/remove", control.RemoveNames{Action: policy.Allow, Names: []string{"OFFICE.example", "other.example"}})
	if len(ans.Removed) != 2 || len(ans.NotNamed) != 1 || ans.NotNamed[0] != "other.example" {
		t.Errorf("%+v", ans)
	}
	asked := z.Asked("A", "office.example")
	r.clock.pass(24 * time.Hour)
	time.Sleep(20 * time.Millisecond)
	if got := r.h.prefixes(); got != "" || z.Asked("A", "office.example") != asked {
		t.Errorf("after the end: %s in force, asked %d more times", got, z.Asked("A", "office.example")-asked)
	}
}

// What undo brings back is kept up to date again.
func TestUndoBringsANameBack(t *testing.T) {
	z, addr := namestest.Serve(t, zone)
	r := start(t, newHost(), addr)
	ans := r.must("/v1/names", allow("office.example"))
	r.must("/v1/names/remove", control.RemoveNames{Action: policy.Allow, Names: []string{"office.example"}})
	z.Set(t, strings.Replace(zone, "192.0.2.10", "192.0.2.11", 1))
	r.h.edit(func(s *policy.Set) {
		for _, e := range ans.Added {
			s.Put(e)
		}
	})
	r.becomes("192.0.2.11/32 2001:db8::10/128")
}
