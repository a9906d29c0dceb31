package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader/rule"
)

func TestNamesAreToldFromPrefixes(t *testing.T) {
	for s, want := range map[string]bool{
		"office.example.org": true, "office.example.org.": true, "spf:partner.example": true, "spf:": true, "_spf.example.org": true,
		"192.0.2.1": false, "192.0.2.0/24": false, "192.0.2.999": false, "2001:db8::1": false, "nonsense": false, "": false, ".": false, "1.2.3": false, "::ffff:1.2.3.x": false,
	} {
		if got := policy.IsName(s); got != want {
			t.Errorf("IsName(%q) = %v", s, got)
		}
	}
}

func TestParseName(t *testing.T) {
	for s, want := range map[string]string{
		"Office.Example.ORG.": "office.example.org", "spf:Partner.example": "spf:partner.example", "bücher.example": "xn--bcher-kva.example",
		"spf:": "", "spf:localhost": "", "a..b": "", strings.Repeat("a", 64) + ".example": "", "a b.example": "", "a.example;": "",
		strings.Repeat("abcdefgh.", 29) + "example": "", "spf:192.0.2.1": "", "a.\u202eexample": "",
	} {
		got, err := policy.ParseName(s)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseName(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}

func TestNamedEntriesKeepTheirOwnIdentity(t *testing.T) {
	p, now := netip.MustParsePrefix("192.0.2.1/32"), time.Now()
	plain := policy.Entry{Action: policy.Allow, Prefix: p, Origin: policy.Operator, Note: "plain"}
	named := policy.Entry{Action: policy.Allow, Prefix: p, Origin: policy.Operator, Name: "office.example.org"}
	set := policy.NewSet(named, plain)
	if set.Len() != 2 || named.ID() == plain.ID() {
		t.Fatalf("%d entries, want 2 of different IDs", set.Len())
	}
	port := rule.Port{Number: 25, Default: rule.Drop}
	if d := set.Decide(now, p.Addr(), port); d.Entry == nil || d.Entry.Name != "" {
		t.Errorf("decided by %+v, want the entry of no name", d.Entry)
	}
	deny := policy.Entry{Action: policy.Deny, Prefix: p, Origin: policy.Operator}
	if _, _, err := policy.NewSet(named).Add(now, deny); err != nil {
		t.Errorf("what a name resolves to stands in a deny's way: %v", err)
	}
	var text strings.Builder
	if err := policy.Format(&text, set.All(), policy.FormatOptions{Origins: true}); err != nil {
		t.Fatal(err)
	}
	back, _, err := policy.Parse(strings.NewReader(text.String()), policy.ParseOptions{Origins: true, Now: now})
	if err != nil || len(back) != 2 || policy.NewSet(back...).Len() != 2 {
		t.Errorf("read back %v, %v of %s", back, err, text.String())
	}
}

func TestSharedRangesNeverRelay(t *testing.T) {
	e := policy.Entry{Action: policy.Allow, Prefix: netip.MustParsePrefix("192.0.2.0/24"), Origin: policy.Operator, Name: "spf:partner.example", Relay: true}
	if err := e.Validate(nil); err == nil || !strings.Contains(err.Error(), "shared") {
		t.Errorf("an SPF entry with the relay right: %v", err)
	}
	e.Name = "printer.example.org"
	if err := e.Validate(nil); err != nil {
		t.Errorf("a host's: %v", err)
	}
	e.Origin, e.Name, e.Feed = policy.Feed, "", "list"
	if err := e.Validate(nil); err == nil {
		t.Error("a feed's entry took the relay right")
	}
}
