package imports_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/policy/imports"
)

func read(format, text string) (lines, warnings []string, err error) {
	entries, warnings, err := imports.Read(strings.NewReader(text), imports.Options{Name: "f", Format: format, Action: policy.Allow, Now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)})
	for _, e := range entries {
		lines = append(lines, strings.Join(strings.Fields(e.Line()), " "))
	}
	return lines, warnings, err
}

func TestFormats(t *testing.T) {
	for name, c := range map[string]struct {
		format, text string
		want         []string
		warned       int
	}{
		"plain": {"plain", "\ufeff192.0.2.0/24 # office\n; comment\n2001:db8::/32, 192.0.2.1\n192.0.2.1\n", []string{
			"allow 192.0.2.0/24", "allow 2001:db8::/32", "allow 192.0.2.1/32"}, 0},
		"host bits": {"plain", "192.0.2.5/24", []string{"allow 192.0.2.0/24"}, 1},
		"range":     {"plain", "192.0.2.1-192.0.2.6", []string{"allow 192.0.2.1/32", "allow 192.0.2.2/31", "allow 192.0.2.4/31", "allow 192.0.2.6/32"}, 0},
		"csv": {"csv", "Name,CIDR,Ports,Action\n\"Acme, Inc\",192.0.2.0/24,25 587,\nbad,192.0.2.9,,deny\n", []string{
			`allow 192.0.2.0/24 25,587 note="Acme, Inc"`, `deny 192.0.2.9/32 note="bad"`}, 0},
		"csv without headings": {"csv", "192.0.2.1;office\n", []string{`allow 192.0.2.1/32 note="office"`}, 0},
		"mynetworks": {"postfix", "myhostname = x\nmynetworks = 127.0.0.0/8, [::1]/128\n    !192.0.2.1 10.0.0.0/8\nrelayhost = [x]:587\n", []string{
			"allow 127.0.0.0/8", "allow ::1/128", "deny 192.0.2.1/32", "allow 10.0.0.0/8"}, 0},
		"mynetworks alone": {"postfix", "127.0.0.0/8 10.0.0.0/8\n", []string{"allow 127.0.0.0/8", "allow 10.0.0.0/8"}, 0},
		"cidr table":       {"postfix", "192.0.2.1 REJECT go away\n192.0.2.0/24 OK\n[2001:db8::]/32\tpermit\n10.0.0.0/8 DUNNO\n198.51.100.0/24 554 no\n", []string{"deny 192.0.2.1/32", "allow 192.0.2.0/24", "allow 2001:db8::/32", "deny 198.51.100.0/24"}, 1},
		"ipset": {"ipset", "create s hash:net family inet\nadd s 192.0.2.0/24 timeout 30 comment \"Acme office\"\nadd s 192.0.2.9 nomatch\nadd p 198.51.100.1,tcp:25\n", []string{
			`allow 192.0.2.0/24 expires=2026-11-24T12:00:30Z note="Acme office"`, "deny 192.0.2.9/32", "allow 198.51.100.1/32 25"}, 0},
		"ipset, as it saves counters": {"ipset", "add s 192.0.2.1 timeout 0 packets 5 bytes 300 comment \"no timeout 9 # here\"\nadd s 192.0.2.2 comment \"x\" timeout 86400 nomatch\n", []string{
			`allow 192.0.2.1/32 note="no timeout 9 # here"`, `deny 192.0.2.2/32 expires=2026-11-25T12:00:00Z note="x"`}, 0},
		"nft": {"nft", "table inet t {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.0/24 comment \"a, b}\", 10.0.0.0-10.0.0.1,\n\t\t\t     198.51.100.7 timeout 1d expires 2h }\n\t}\n\tset e { elements = { 2001:db8::/32 } }\n\tchain c { ip saddr { 203.0.113.1 } accept }\n}\n", []string{
			`allow 192.0.2.0/24 note="a, b}"`, "allow 10.0.0.0/31", "allow 198.51.100.7/32 expires=2026-11-24T14:00:00Z", "allow 2001:db8::/32"}, 0},
		"nft's times": {"nft", "elements = { 192.0.2.1 expires 1d2h3m4s500ms, 192.0.2.2 timeout 30m, 192.0.2.3 timeout 0s, 192.0.2.4 timeout never,\n 192.0.2.5 timeout 1h\n expires 20s, 192.0.2.6 counter packets 1 bytes 60 timeout 2d expires 0s comment \"timeout 5s\" }\n", []string{
			"allow 192.0.2.1/32 expires=2026-11-25T14:03:05Z", "allow 192.0.2.2/32 expires=2026-11-24T12:30:00Z", "allow 192.0.2.3/32", "allow 192.0.2.4/32",
			"allow 192.0.2.5/32 expires=2026-11-24T12:00:20Z", `allow 192.0.2.6/32 expires=2026-11-24T12:00:01Z note="timeout 5s"`}, 0},
	} {
		got, warnings, err := read(c.format, c.text)
		if err != nil || len(warnings) != c.warned {
			t.Errorf("%s: %v, warnings %q", name, err, warnings)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestBadLinesAreNamedAndNothingIsTaken(t *testing.T) {
	for name, c := range map[string]struct{ format, text, want string }{
		"bad prefix":    {"plain", "192.0.2.1\n  nonsense\n", "f:2:3: prefix \"nonsense\""},
		"bad range":     {"plain", "192.0.2.9-192.0.2.1", "f:1:1: range"},
		"bad csv":       {"csv", "prefix,ports\n192.0.2.1,smtp\n", "f:2:11: ports: port \"smtp\""},
		"bad quote":     {"csv", "prefix\n\"192.0.2.1\n", "f:2:1: not CSV"},
		"bad action":    {"csv", "prefix,action\n192.0.2.1,maybe\n", "f:2:1: maybe 192.0.2.1/32: action"},
		"bad table":     {"postfix", "192.0.2.0/24 FILTER smtp:x\n", "f:1:14: result \"FILTER\""},
		"bad if":        {"postfix", "if 192.0.2.0/24\n192.0.2.1 OK\nendif\n", "f:1:1: "},
		"bad reference": {"postfix", "mynetworks = hash:/etc/postfix/networks\n", "f:1:14: \"hash:/etc/postfix/networks\" names a file"},
		"bad element":   {"nft", "elements = { 192.0.2.0/24, @other }\n", "f:1:28: prefix \"@other\""},
		"bad below":     {"nft", "elements = { 192.0.2.0/24,\n   @other }\n", "f:2:4: prefix \"@other\""},
		"bad add":       {"ipset", "add s\n", "f:1:1: no element"},
		"bad protocol":  {"ipset", "add s 192.0.2.1,udp:53\n", "f:1:7: element"},
		"bad timeout":   {"ipset", "add s 192.0.2.1 timeout soon\n", "f:1:25: timeout \"soon\": write it"},
		"no timeout":    {"ipset", "add s 192.0.2.1 timeout\n", "f:1:17: timeout: no time"},
		"bad expiry":    {"nft", "elements = { 192.0.2.1 expires 1x }\n", "f:1:32: expires \"1x\": write it"},
		"long timeout":  {"nft", "elements = { 192.0.2.1 timeout 40000d }\n", "f:1:32: timeout \"40000d\": time"},
		"bad format":    {"xml", "", "format \"xml\""},
	} {
		got, _, err := read(c.format, c.text)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || got != nil {
			t.Errorf("%s: %v %v, want %s", name, got, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, format := range strings.Split(imports.Formats, ", ") {
		f.Add(format, "mynetworks = !10.0.0.0/8\nadd s 192.0.2.1,tcp:25 timeout 9\nelements = { ::1-::9 expires 1d2s, 1.2.3.4 comment \"x\" }\n\"a\";b\n")
	}
	f.Fuzz(func(t *testing.T, format, text string) {
		entries, _, err := imports.Read(strings.NewReader(text), imports.Options{Name: "f", Format: format, Action: policy.Allow})
		if err != nil && entries != nil {
			t.Error("entries beside an error")
		}
		for _, e := range entries {
			if err := e.Validate(nil); err != nil {
				t.Errorf("%s: %v", e.Line(), err)
			}
		}
	})
}
