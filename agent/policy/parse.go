package policy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseOptions tell Parse about the text and its surroundings.
type ParseOptions struct {
	Name   string    // the file's, for messages
	Origin Origin    // of the entries
	Ports  []uint16  // the protected ports; empty = any port will do
	Now    time.Time // for which entries contradict each other: expired ones do not
	// Origins also takes every origin=, and entries that contradict each
	// other: for a text that Format has written of a whole set.
	Origins  bool
	Subjects bool // also takes lines that name a host, an SPF record or a feed; see Read
}

// Text is what a policy text says.
type Text struct {
	Entries  []Entry // in the text's order
	Subjects []Subject
	Warnings []*Problem // what was taken instead of what stands there
}

// maxLine is the length of a line, in bytes.
const maxLine = 64 << 10

// Parse is Read for a text of prefixes alone.
func Parse(r io.Reader, o ParseOptions) (entries []Entry, warnings []*Problem, err error) {
	o.Subjects = false
	text, err := Read(r, o)
	return text.Entries, text.Warnings, err
}

// Read reads a policy as text, one entry a line:
//
//	# action  prefix            ports        options
//	allow     192.0.2.0/24                   max-conns=50 rate=10/s note="Acme office"
//	allow     2001:db8:7::/48   587,465      expires=2027-01-31T00:00:00Z
//	deny      192.0.2.66                     note="stolen laptop"
//	allow     spf:partner.example  25
//	deny      feed:spam                      url=https://lists.example/spam.txt every=6h
//
// Options: max-conns, rate, burst, shared, relay, immune (yes or no), expires
// (RFC 3339), origin (learned alone), note; url and every of a feed. It is all
// or nothing: the error is of type Problems where the text is wrong.
func Read(r io.Reader, o ParseOptions) (Text, error) {
	p := parser{o: o, set: NewSet(), words: map[string]int{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() && len(p.problems) < maxProblems {
		p.line++
		text := lines.Text()
		if p.line == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if problem := p.parseLine(text); problem != nil {
			p.problems = append(p.problems, p.place(problem))
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		p.line++
		p.problems = append(p.problems, p.place(&Problem{Col: 1, Msg: fmt.Sprintf("the line is longer than %d bytes", maxLine)}))
	} else if lines.Err() != nil {
		return Text{}, fmt.Errorf("read %s: %w", o.Name, lines.Err())
	}
	if len(p.problems) > 0 {
		return Text{}, p.problems
	}
	return p.text, nil
}

type parser struct {
	o        ParseOptions
	line     int
	text     Text
	set      *Set           // to find contradictions, and what stands there twice
	lines    []int          // of each entry
	words    map[string]int // of each subject
	problems Problems
}

func (p *parser) place(problem *Problem) *Problem {
	problem.File, problem.Line = p.o.Name, p.line
	return problem
}

func (p *parser) parseLine(text string) *Problem {
	fields, problem := splitLine(text)
	if problem != nil || len(fields) == 0 {
		return problem
	}
	e := Entry{Action: Action(fields[0].text), Origin: p.o.Origin}
	switch e.Action { // the constants do not hold on to the line
	case Allow:
		e.Action = Allow
	case Deny:
		e.Action = Deny
	default:
		return &Problem{Col: fields[0].col, Msg: fmt.Sprintf("action %q: write allow or deny", fields[0].text)}
	}
	if len(fields) == 1 {
		return &Problem{Col: fields[0].col, Msg: "no prefix after the action: write an address or prefix such as 192.0.2.0/24"}
	}
	prefix, rest := fields[1], fields[2:]
	if s, ok, err := subject(prefix.text); err != nil {
		return &Problem{Col: prefix.col, Msg: err.Error()}
	} else if ok {
		return p.subjectLine(s, e.Action, prefix, rest)
	}
	masked, warning, err := ParsePrefix(prefix.text)
	if err != nil {
		return &Problem{Col: prefix.col, Msg: err.Error()}
	}
	e.Prefix = masked
	rest, problem = p.ports(&e, rest)
	if problem == nil {
		problem = p.options(&e, nil, rest)
	}
	if problem != nil {
		return problem
	}
	if e, _, err = New(e, p.o.Ports); err == nil {
		err = p.add(e)
	}
	if err != nil {
		return &Problem{Col: prefix.col, Msg: err.Error()}
	}
	if warning != "" {
		p.text.Warnings = append(p.text.Warnings, p.place(&Problem{Col: prefix.col, Msg: warning}))
	}
	return nil
}

// ports takes the ports from what follows the prefix, where they are given.
func (p *parser) ports(e *Entry, rest []field) (_ []field, problem *Problem) {
	if len(rest) == 0 || strings.Contains(rest[0].text, "=") {
		return rest, nil
	}
	var err error
	if e.Ports, err = ParsePorts(rest[0].text, p.o.Ports); err != nil {
		return nil, &Problem{Col: rest[0].col, Msg: err.Error()}
	}
	return rest[1:], nil
}

// add keeps an entry that goes together with those before it.
func (p *parser) add(e Entry) error {
	if !p.o.Origins {
		if err := p.set.Conflict(p.o.Now, e); err != nil {
			return err
		}
	}
	if _, twice := p.set.Put(e); twice {
		line := p.lines[slices.IndexFunc(p.text.Entries, func(o Entry) bool { return o.Key() == e.Key() })]
		return fmt.Errorf("%s %s stands on line %d already: make one line of the two", e.Action, e.Prefix, line)
	}
	p.lines = append(p.lines, p.line)
	p.text.Entries = append(p.text.Entries, e)
	return nil
}

// options reads what an entry, or each of a subject's, is beside its ports.
func (p *parser) options(e *Entry, s *Subject, fields []field) *Problem {
	seen := map[string]bool{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f.text, "=")
		if !ok {
			return &Problem{Col: f.col, Msg: fmt.Sprintf("%q: options are written key=value, text with spaces in double quotes", f.text)}
		}
		isFeeds := s != nil && s.Entry.Feed != "" && slices.Contains(strings.Split(feedKeys, ", "), key)
		if !isFeeds && !slices.Contains(strings.Split(optionKeys, ", "), key) {
			return &Problem{Col: f.col, Msg: fmt.Sprintf("option %q: not known; there are %s; of a feed also %s", key, optionKeys, feedKeys)}
		}
		if seen[key] {
			return &Problem{Col: f.col, Msg: fmt.Sprintf("option %s stands on this line twice", key)}
		}
		seen[key] = true
		value, err := unquote(value)
		switch {
		case err != nil:
		case isFeeds:
			err = feedOption(s, key, value)
		case key == "origin" && !p.o.Origins && (s != nil || value != string(Learned)):
			err = fmt.Errorf("%q: a file says origin=learned of a prefix, or nothing", value)
		default:
			err = option(e, key, value)
		}
		if err != nil {
			return &Problem{Col: f.col, Msg: fmt.Sprintf("option %s: %s", key, err)}
		}
	}
	return nil
}

// optionKeys are the options in the order of Format.
const (
	optionKeys = "max-conns, rate, burst, shared, relay, immune, expires, origin, note"
	feedKeys   = "url, every"
)

func option(e *Entry, key, value string) (err error) {
	switch key {
	case "max-conns":
		e.MaxConns, err = parseCount(value)
	case "burst":
		e.Burst, err = parseCount(value)
	case "rate":
		var r Rate
		r, err = ParseRate(value)
		e.Rate = &r
	case "shared":
		e.Shared, err = parseYes(value)
	case "relay":
		e.Relay, err = parseYes(value)
	case "immune":
		e.Immune, err = parseYes(value)
	case "expires":
		e.Expires, err = parseExpiry(value)
	case "note":
		e.Note, err = strings.Clone(value), checkText("note", value)
	case "origin":
		origin, by, _ := strings.Cut(value, ":")
		if e.Origin = Origin(origin); e.Origin == Operator {
			e.Name = by
		} else {
			e.Feed = by
		}
		err = e.checkOrigin()
	}
	return err
}

func parseCount(s string) (*uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q: write a whole number, 0 to 4294967295", s)
	}
	v := uint32(n)
	return &v, nil
}

func parseYes(s string) (bool, error) {
	if s != "yes" && s != "no" {
		return false, fmt.Errorf("%q: write yes or no", s)
	}
	return s == "yes", nil
}

func parseExpiry(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return time.Time{}, fmt.Errorf("%q: write a date with time and zone such as 2027-01-31T00:00:00Z", s)
	}
	return t, Entry{Expires: wholeSecond(t)}.checkExpiry()
}
