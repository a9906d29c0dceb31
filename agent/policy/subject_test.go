package policy_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/synward/synward/agent/policy"
)

func withSubjects() policy.ParseOptions {
	o := options()
	o.Subjects = true
	return o
}

// whole is a text with all that one may name, as Format writes it.
const whole = `# action  prefix            ports        options
allow     192.0.2.0/24                   note="Acme office"
allow     198.51.100.7/32   25           origin=learned note="learned: 12 attempts"
allow     office.example.org 465,587      max-conns=5 rate=3/m relay=yes expires=2027-01-31T00:00:00Z note="dyndns"
deny      office.example.org 25
allow     spf:partner.example
deny      feed:spam         25           url=https://lists.example/a?b=c#d every=6h note="a list"
allow     feed:vpn                       url="/var/lib/a list"
`

func TestReadNamesAndFeeds(t *testing.T) {
	text, err := policy.Read(strings.NewReader(whole), withSubjects())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = policy.Format(&out, slices.Values(text.Entries), policy.FormatOptions{Subjects: text.Subjects})
	if err != nil || out.String() != whole {
		t.Errorf("%v\n%s\nwant\n%s", err, &out, whole)
	}
	s := text.Subjects[3]
	if s.Place.Line != 7 || s.Place.Col != 11 || s.URL != "https://lists.example/a?b=c#d" || s.Every.Hours() != 6 || s.Entry.Origin != policy.Feed {
		t.Errorf("feed %+v", s)
	}
	if e := text.Entries[1]; e.Origin != policy.Learned || e.Action != policy.Allow {
		t.Errorf("learned %+v", e)
	}
}

func TestReadBadNamesAndFeeds(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"bad name":         {"allow of_fice..example", "p.txt:1:7: name \"of_fice..example\": each part"},
		"bad twice":        {"allow a.example\nallow A.example. 25", "p.txt:2:7: allow a.example stands on line 1 already"},
		"bad feed twice":   {"allow feed:x url=/a\ndeny feed:x url=/b", "p.txt:2:6: feed:x stands on line 1 already"},
		"bad port":         {"allow a.example 26", "p.txt:1:17: port 26"},
		"bad relay of spf": {"allow spf:a.example relay=yes", "p.txt:1:7: relay on spf:a.example"},
		"bad relay feed":   {"allow feed:x url=/a relay=yes", "p.txt:1:7: relay: what a feed lists"},
		"bad feed name":    {"deny feed:A url=/a", "p.txt:1:6: feed name"},
		"bad no url":       {"deny feed:x", "p.txt:1:6: feed:x: say where it is"},
		"bad url of name":  {"allow a.example url=/a", "p.txt:1:17: option \"url\": not known"},
		"bad every":        {"deny feed:x url=/a every=often", "p.txt:1:20: option every: time \"often\""},
		"bad origin":       {"allow a.example origin=learned", "p.txt:1:17: option origin"},
	} {
		_, err := policy.Read(strings.NewReader(c.text), withSubjects())
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
