package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// FeedPrefix begins the word that stands for a feed in a policy text, where
// other lines have their prefix.
const FeedPrefix = "feed:"

// Subject is what a line of a policy text names instead of a prefix, because
// its prefixes change by themselves: a DNS name, an SPF record or a feed.
type Subject struct {
	Entry Entry         // what each of its entries is, without the prefix; Name or Feed is set
	URL   string        // of a feed
	Every time.Duration // how often a feed is asked for; 0 = the usual
	Place Problem       // where it stands; File "" = in no text
}

// Word is what stands in the place of the prefix: office.example.org,
// spf:partner.example, feed:spam.
func (s Subject) Word() string {
	if s.Entry.Feed != "" {
		return FeedPrefix + s.Entry.Feed
	}
	return s.Entry.Name
}

// Fail is an error about the subject, which it names, with the place where it
// stands.
func (s Subject) Fail(err error) error {
	err = fmt.Errorf("%s: %w", s.Word(), err)
	if s.Place.File == "" {
		return err
	}
	return fmt.Errorf("%s:%d:%d: %w", s.Place.File, s.Place.Line, s.Place.Col, err)
}

func compareSubjects(a, b Subject) int {
	return cmp.Or(
		cmp.Compare(a.Entry.Feed, b.Entry.Feed), // names, which have none, come first
		cmp.Compare(a.Entry.Name, b.Entry.Name),
		cmp.Compare(a.Entry.Action, b.Entry.Action),
	)
}

// subject reads what stands in the place of a line's prefix; ok = it is no
// prefix but a name or a feed.
func subject(word string) (s Subject, ok bool, err error) {
	feed, isFeed := strings.CutPrefix(word, FeedPrefix)
	switch {
	case isFeed:
		s.Entry.Origin, s.Entry.Feed = Feed, feed
		return s, true, CheckFeedName(feed)
	case IsName(word):
		s.Entry.Origin = Operator
		s.Entry.Name, err = ParseName(word)
		return s, true, err
	}
	return s, false, nil
}

// subjectLine takes the fields of a line that names a subject.
func (p *parser) subjectLine(s Subject, action Action, word field, rest []field) *Problem {
	s.Entry.Action = action
	s.Place = Problem{File: p.o.Name, Line: p.line, Col: word.col}
	rest, problem := p.ports(&s.Entry, rest)
	if problem == nil {
		problem = p.options(&s.Entry, &s, rest)
	}
	if problem != nil {
		return problem
	}
	sample := s.Entry
	sample.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 32) // one that any entry may have
	sample, _, err := New(sample, p.o.Ports)
	switch {
	case err != nil:
	case !p.o.Subjects:
		err = fmt.Errorf("%s: only prefixes are taken here", word.text)
	case s.Entry.Feed != "" && s.URL == "":
		err = fmt.Errorf("%s: say where it is: url=https://host/path, or the absolute path of a file", word.text)
	default:
		s.Entry = sample
		s.Entry.Prefix = netip.Prefix{}
		err = p.addSubject(s)
	}
	if err != nil {
		return &Problem{Col: word.col, Msg: err.Error()}
	}
	return nil
}

// addSubject keeps a subject that no line before has named.
func (p *parser) addSubject(s Subject) error {
	id := s.Word()
	if s.Entry.Feed == "" {
		id = string(s.Entry.Action) + " " + id // a name may be allowed on one port and denied on another
	}
	if line := p.words[id]; line != 0 {
		return fmt.Errorf("%s stands on line %d already: make one line of the two", id, line)
	}
	p.words[id] = p.line
	p.text.Subjects = append(p.text.Subjects, s)
	return nil
}

// feedOption reads an option that only a feed's line has.
func feedOption(s *Subject, key, value string) (err error) {
	switch key {
	case "url":
		s.URL, err = value, checkURL(value)
	case "every":
		s.Every, err = ParseTTL(value)
		s.Every = s.Every.Truncate(time.Second)
	}
	return err
}

// maxURL is the length of a feed's address, in bytes.
const maxURL = 2048

func checkURL(u string) error {
	if len(u) > maxURL {
		return fmt.Errorf("%d bytes long; at most %d", len(u), maxURL)
	}
	if strings.ContainsFunc(u, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q: no control or invisible characters", u)
	}
	return nil
}

// subjectOptions are the options that only a feed's line has.
func subjectOptions(s Subject) (out []string) {
	if s.URL != "" {
		u := s.URL
		if strings.ContainsAny(u, " \t") {
			u = `"` + u + `"`
		}
		out = append(out, "url="+u)
	}
	if s.Every != 0 {
		out = append(out, "every="+FormatTTL(s.Every))
	}
	return out
}

// FormatTTL writes a duration of whole seconds as ParseTTL reads it, in one
// unit: 90s, 30m, 36h, 7d.
func FormatTTL(d time.Duration) string {
	for _, u := range []struct {
		name string
		of   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d%u.of == 0 {
			return strconv.FormatInt(int64(d/u.of), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
