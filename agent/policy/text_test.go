package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/synward/synward/agent/policy"
)

var known = []uint16{587, 25, 465}

func options() policy.ParseOptions {
	return policy.ParseOptions{Name: "p.txt", Origin: policy.File, Ports: known, Now: start}
}

// example is the text of the contract, but for what is not canonical in it.
const example = `# action  prefix            ports        options
allow     192.0.2.0/24                   max-conns=50 rate=10/s note="Acme office"
deny      192.0.2.66/32                  note="stolen laptop"
allow     198.51.100.10/32  25           relay=yes note="printer, 2nd floor"
allow     2001:db8:7::/48   465,587      expires=2027-01-31T00:00:00Z
`

func TestParseAndFormat(t *testing.T) {
	text := "\ufeff# a comment\r\n\n" + `
  deny 192.0.2.66 note="stolen laptop"   # and a comment
allow	198.51.100.10	25	relay=yes	note="printer, 2nd floor" shared=no
allow 2001:DB8:7::1/48 587,465,587 expires=2027-01-31T01:00:00+01:00
allow 192.0.2.0/24 rate=10/s max-conns=50 note="Acme office"`
	entries, warnings, err := policy.Parse(strings.NewReader(text), options())
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].Error() != "p.txt:6:7: 2001:db8:7::1/48 has host bits set; taken as 2001:db8:7::/48" {
		t.Errorf("warnings %v", warnings)
	}
	var out bytes.Buffer
	if err := policy.Format(&out, slices.Values(entries), policy.FormatOptions{}); err != nil || out.String() != example {
		t.Errorf("%v\n%s\nwant\n%s", err, &out, example)
	}
	if got := entries[0].Line(); got != strings.Split(example, "\n")[2] {
		t.Errorf("line %q", got)
	}
}

func TestParseBad(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"bad action", "\npermit 192.0.2.1", `p.txt:2:1: action "permit": write allow or deny`},
		{"bad case", "Allow 192.0.2.1", `p.txt:1:1: action "Allow": write allow or deny`},
		{"bad prefix missing", "allow", "p.txt:1:1: no prefix after the action"},
		{"bad prefix", "allow  192.0.2.0/33", `p.txt:1:8: prefix "192.0.2.0/33": not an IPv4 or IPv6`},
		{"bad prefix zone", "allow fe80::1%eth0", `p.txt:1:7: prefix "fe80::1%eth0": a zone`},
		{"bad prefix mapped", "allow ::ffff:192.0.2.1", "p.txt:1:7: prefix \"::ffff:192.0.2.1/128\": an IPv4-mapped address never comes over the wire; write the IPv4 form 192.0.2.1/32"},
		{"bad prefix mapped with bits", "allow ::ffff:192.0.2.1/120", "write the IPv4 form 192.0.2.0/24"},
		{"bad port", "allow 192.0.2.1 25,26", "p.txt:1:17: port 26: the filter does not protect it; it protects 25, 465, 587"},
		{"bad port text", "allow 192.0.2.1 smtp", `p.txt:1:17: port "smtp"`},
		{"bad port empty", "allow 192.0.2.1 25,", `p.txt:1:17: port ""`},
		{"bad port zero", "allow 192.0.2.1 0", `p.txt:1:17: port "0"`},
		{"bad port sign", "allow 192.0.2.1 +25", `p.txt:1:17: port "+25"`},
		{"bad option", "allow 192.0.2.1 ttl=24h", `p.txt:1:17: option "ttl": not known; there are max-conns,`},
		{"bad option word", "allow 192.0.2.1 25 587", `p.txt:1:20: "587": options are written key=value`},
		{"bad option twice", "allow 192.0.2.1 burst=1 burst=2", "p.txt:1:25: option burst stands on this line twice"},
		{"bad option origin", "allow 192.0.2.1 origin=operator", `p.txt:1:17: option origin: "operator": a file says origin=learned`},
		{"bad name here", "allow office.example.org", "p.txt:1:7: office.example.org: only prefixes are taken here"},
		{"bad rate", "allow 192.0.2.1 rate=10", `p.txt:1:17: option rate: rate "10": say per what: 10/s, 10/m or 10/h`},
		{"bad rate unit", "allow 192.0.2.1 rate=10/d", "option rate"},
		{"bad count", "allow 192.0.2.1 max-conns=-1", `p.txt:1:17: option max-conns: "-1"`},
		{"bad yes", "allow 192.0.2.1 relay=true", `p.txt:1:17: option relay: "true": write yes or no`},
		{"bad burst", "allow 192.0.2.1 burst=0", "p.txt:1:7: burst 0"},
		{"bad expiry", "allow 192.0.2.1 expires=tomorrow", `p.txt:1:17: option expires: "tomorrow"`},
		{"bad expiry zero", "allow 192.0.2.1 expires=0001-01-01T00:00:00Z", "p.txt:1:17: option expires"},
		{"bad expiry rounded up", "allow 192.0.2.1 expires=9999-12-31T23:59:59.5Z", "p.txt:1:17: option expires"},
		{"bad quote open", `allow 192.0.2.1 note="a`, "p.txt:1:17: a double quote is not closed"},
		{"bad quote inside", `allow 192.0.2.1 note=a"b"c`, "p.txt:1:17: option note: double quotes go around"},
		{"bad note control", "allow 192.0.2.1 note=\"a\x1b[2J\"", "p.txt:1:17: option note"},
		{"bad note direction", "allow 192.0.2.1 note=\"a\u202eb\"", "p.txt:1:17: option note"},
		{"bad note length", "allow 192.0.2.1 note=" + strings.Repeat("x", 257), "p.txt:1:17: option note: note: 257 bytes"},
		{"column in characters", "allow 192.0.2.1 note=\"\u00e4\u00e4\" x=1", `p.txt:1:27: option "x"`},
		{"bad UTF-8", "allow 192.0.2.1 note=\xff", "p.txt:1:1: the line is not valid UTF-8"},
		{"bad line length", "#\n#" + strings.Repeat("x", 1<<17), "p.txt:2:1: the line is longer than"},
		{"bad deny with caps", "deny 192.0.2.1 rate=1/s", "p.txt:1:6: a deny entry takes no caps"},
		{"bad open relay", "allow 0.0.0.0/0 relay=yes", "p.txt:1:7: relay on 0.0.0.0/0"},
		{"bad twice", "allow 192.0.2.1 25\n\nallow 192.0.2.1/32 587", "p.txt:3:7: allow 192.0.2.1/32 stands on line 1 already"},
		{"bad contradiction", "allow 192.0.2.1 25,587\ndeny 192.0.2.1 587",
			"p.txt:2:6: deny 192.0.2.1/32 contradicts the allow of the same prefix on port 587: remove that first"},
		{"bad contradiction everywhere", "allow 192.0.2.1\ndeny 192.0.2.1", "on every port"},
		{"more than one", "allow x\nallow y", `p.txt:1:7: prefix "x": not an IPv4 or IPv6 address or prefix such as 192.0.2.0/24 or 2001:db8::/32 (and 1 more)`},
		{"very many", strings.Repeat("allow x\n", 99), "(and 9 or more others)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			entries, _, err := policy.Parse(strings.NewReader("allow 10.0.0.1\n"+test.text), options())
			if err == nil || len(entries) > 0 {
				t.Fatalf("%d entries, error %v; want none and an error", len(entries), err)
			}
			var problems policy.Problems
			if !errors.As(err, &problems) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q is not one line of Problems", err)
			}
			for _, p := range problems {
				p.Line-- // for the good line in front
			}
			if got := err.Error(); !strings.Contains(strings.ReplaceAll(got, "line 2 ", "line 1 "), test.want) {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func TestParseTakesWhatDoesNotContradict(t *testing.T) {
	text := `allow 192.0.2.1 25
deny 192.0.2.1 587
deny 192.0.2.2 expires=2026-07-01T12:00:00Z
allow 192.0.2.2`
	if entries, _, err := policy.Parse(strings.NewReader(text), options()); err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestParsePassesReadErrorsOn(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, _, err := policy.Parse(iotest.ErrReader(broken), options()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20/s": 50 * time.Millisecond, "100/m": 600 * time.Millisecond, "5/h": 12 * time.Minute, "0": 0, "1000000/s": time.Microsecond,
	} {
		r, err := policy.ParseRate(text)
		if err != nil || r.Interval() != want || r.String() != text {
			t.Errorf("%q: %v after %v, %v", text, r, r.Interval(), err)
		}
		var back policy.Rate
		if b, err := json.Marshal(r); err != nil || json.Unmarshal(b, &back) != nil || back != r {
			t.Errorf("%q through JSON: %s %v %v", text, b, back, err)
		}
	}
	if r, err := policy.ParseRate("0/m"); err != nil || r != (policy.Rate{}) {
		t.Errorf("0/m: %v %v", r, err)
	}
	for _, bad := range []string{"", "/s", "20", "20/", "-1/s", "+1/s", "1.5/s", "20/d", "20/s/s", "1000001/s", "4294967296/s", " 1/s"} {
		if r, err := policy.ParseRate(bad); err == nil {
			t.Errorf("%q: taken as %v", bad, r)
		}
	}
}

func TestParseTTL(t *testing.T) {
	for text, want := range map[string]time.Duration{"24h": 24 * time.Hour, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "2w": 336 * time.Hour} {
		if d, err := policy.ParseTTL(text); err != nil || d != want {
			t.Errorf("%q: %v %v", text, d, err)
		}
	}
	for _, bad := range []string{"", "d", "-1h", "-1d", "0", "1ms", "1.5d", "10", "1y", "60000w", "2562047h"} {
		if d, err := policy.ParseTTL(bad); err == nil {
			t.Errorf("%q: taken as %v", bad, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("deny 192.0.2.66 25,587 note=\"a b\" # c\r\nallow ::1/64 rate=1/h burst=3 expires=2027-01-31T00:00:00.5+01:00")
	f.Add("allow ::ffff:1.2.3.4/100\n\x00 \"=\"")
	f.Add(whole)
	f.Fuzz(func(t *testing.T, text string) {
		read, err := policy.Read(strings.NewReader(text), withSubjects())
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("error is not one plain line: %q", err)
			}
			return
		}
		var out bytes.Buffer
		if err := policy.Format(&out, slices.Values(read.Entries), policy.FormatOptions{Subjects: read.Subjects}); err != nil {
			t.Fatal(err)
		}
		written := out.String()
		again, err := policy.Read(&out, withSubjects())
		if err != nil || len(again.Warnings) > 0 {
			t.Fatalf("what was read as %q and written as %q: %v %v", text, written, err, again.Warnings)
		}
		if c := policy.Diff(policy.NewSet(read.Entries...), policy.NewSet(again.Entries...)); !c.Empty() {
			t.Fatalf("changed on the way: %+v", c)
		}
		var lines []string
		for _, s := range again.Subjects {
			lines = append(lines, s.Line())
		}
		for _, s := range read.Subjects {
			if !slices.Contains(lines, s.Line()) {
				t.Fatalf("lost on the way: %s", s.Line())
			}
		}
	})
}
