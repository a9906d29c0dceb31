package feeds_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/synward/synward/agent/feeds"
)

func joined(l feeds.List) string {
	var out []string
	for _, p := range l.Prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

func TestForms(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"plain":       {"# a list\n192.0.2.0/24\n\n198.51.100.7\n2001:db8::/32 # note\n", "192.0.2.0/24 198.51.100.7/32 2001:db8::/32"},
		"semicolons":  {"; Spamhaus DROP List\n; Last-Modified: now\n192.0.2.0/24 ; SBL1\n198.51.100.0/24;SBL2\n", "192.0.2.0/24 198.51.100.0/24"},
		"JSON lines":  {`{"cidr":"192.0.2.0/24","sblid":"SBL1","rir":"x"}` + "\n" + `{"type":"metadata","timestamp":1,"size":2}` + "\n", "192.0.2.0/24"},
		"JSON others": {`{"ip":"192.0.2.1"}` + "\n" + `{"address":"2001:db8::1"}`, "192.0.2.1/32 2001:db8::1/128"},
		"columns":     {"192.0.2.1\t3\tsince May\n192.0.2.2,bad,host\n", "192.0.2.1/32 192.0.2.2/32"},
		"CRLF, BOM":   {"\ufeff192.0.2.1\r\n192.0.2.2\r\n", "192.0.2.1/32 192.0.2.2/32"},
		"host bits":   {"192.0.2.77/24\n", "192.0.2.0/24"},
		"nested":      {"10.1.0.0/16\n10.0.0.0/8\n10.2.0.0/16\n10.0.0.0/8\n11.0.0.1\n", "10.0.0.0/8 11.0.0.1/32"},
		"slashes":     {"// made by hand\n192.0.2.1\n", "192.0.2.1/32"},
	} {
		l, err := feeds.Parse(strings.NewReader(c.text), 100)
		if err != nil || joined(l) != c.want || len(l.Notes) > 0 {
			t.Errorf("%s: %s, %v, %v, want %s", name, joined(l), l.Notes, err, c.want)
		}
	}
}

func lines(good, bad int) string {
	var b strings.Builder
	for i := range good {
		fmt.Fprintf(&b, "198.51.%d.%d\n", i/250, i%250)
	}
	for i := range bad {
		fmt.Fprintf(&b, "bad-%d\n", i)
	}
	return b.String()
}

func TestFewBadLinesAreLeftOut(t *testing.T) {
	l, err := feeds.Parse(strings.NewReader(lines(200, 5)), 1000)
	if err != nil || len(l.Prefixes) != 200 {
		t.Fatalf("%d prefixes, %v, want 200", len(l.Prefixes), err)
	}
	notes := strings.Join(l.Notes, "\n")
	if len(l.Notes) != 4 || !strings.Contains(notes, `line 201 left out: prefix "bad-0"`) || !strings.Contains(notes, "2 more lines") {
		t.Errorf("notes %q", notes)
	}
}

func TestBadLists(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"bad half":       {lines(5, 5), "5 of 10 lines are bad: line 6"},
		"bad page":       {"<!DOCTYPE html>\n<html><body>Service unavailable</body></html>\n", "lines are bad"},
		"bad long line":  {"192.0.2.1\n" + strings.Repeat("x", 5000), "line 2 is longer"},
		"bad many":       {lines(101, 0), "more than 100 prefixes"},
		"bad JSON":       {`{"cidr":`, "not a line of JSON"},
		"bad JSON array": {`{"cidr":["192.0.2.1"]}`, "not a line of JSON"},
		"bad mapped":     {"::ffff:192.0.2.1\n", "IPv4-mapped"},
		"bad NUL":        {"192.0.2.1\x00\n", "lines are bad"},
	} {
		l, err := feeds.Parse(strings.NewReader(c.text), 100)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(l.Prefixes) > 0 {
			t.Errorf("%s: %v, %v, want %q", name, l, err, c.want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "; nothing\n\n", `{"type":"metadata"}`} {
		if _, err := feeds.Parse(strings.NewReader(text), 100); !errors.Is(err, feeds.ErrEmpty) {
			t.Errorf("%q: %v, want ErrEmpty", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24\n", "; x\n192.0.2.1 ; y", `{"cidr":"2001:db8::/32"}`, "10.0.0.0/8\n10.1.0.0/16\n::/0\n::1\n", "0.0.0.0/0\n0.0.0.0/1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := feeds.Parse(strings.NewReader(string(b)), 50)
		if err != nil {
			return
		}
		if len(l.Prefixes) == 0 || len(l.Prefixes) > 50 {
			t.Errorf("%d prefixes without an error", len(l.Prefixes))
		}
		for i, p := range l.Prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() && p.Bits() > 0 {
				t.Errorf("prefix %v", p)
			}
			if i > 0 && p.Overlaps(l.Prefixes[i-1]) {
				t.Errorf("%v and %v overlap", l.Prefixes[i-1], p)
			}
		}
	})
}
