// Package imports reads what people have instead of a policy: Postfix's
// mynetworks and CIDR tables, dumps of nft and ipset, plain lists and CSV. It
// is pure: text in, entries out. One bad line fails all.
package imports

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/synward/synward/agent/policy"
)

// Formats are the names of what can be read.
const Formats = "plain, csv, postfix, nft, ipset"

// Options say how a text is to be taken.
type Options struct {
	Name   string        // of the file, for messages
	Format string        // one of Formats
	Action policy.Action // where the text says nothing
	Now    time.Time     // that what is left of a timeout counts from
}

// maxProblems is how many bad lines are collected before it gives up, maxLine
// how long a line may be.
const (
	maxProblems = 10
	maxLine     = 64 << 20 // nft writes a whole set in one
)

// Read reads a text. The error is of type policy.Problems where a line is bad;
// warnings name what was left out or taken otherwise than it stands there.
func Read(r io.Reader, o Options) (entries []policy.Entry, warnings []string, err error) {
	line, ok := map[string]func(*reader, string) error{
		"plain": (*reader).plain, "csv": (*reader).csv, "postfix": (*reader).postfix, "nft": (*reader).nft, "ipset": (*reader).ipset,
	}[o.Format]
	if !ok {
		return nil, nil, fmt.Errorf("format %q: there are %s", o.Format, Formats)
	}
	in := &reader{o: o, seen: map[policy.Key]policy.Entry{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() && len(in.problems) < maxProblems {
		in.line++
		text := lines.Text()
		if in.line == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		err := line(in, text)
		var at *place
		if errors.As(err, &at) {
			in.problems = append(in.problems, &policy.Problem{File: o.Name, Line: in.line, Col: utf8.RuneCountInString(text[:min(at.offset, len(text))]) + 1, Msg: at.msg})
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, nil, fmt.Errorf("read %s: %w", o.Name, lines.Err())
	case len(in.problems) > 0:
		return nil, nil, in.problems
	}
	return in.entries, in.warnings, nil
}

// place is an error at an offset of a line, in bytes.
type place struct {
	offset int
	msg    string
}

// Error is the message alone.
func (p *place) Error() string { return p.msg }

func badf(offset int, format string, args ...any) error {
	return &place{offset, fmt.Sprintf(format, args...)}
}

// reader is a reading under way.
type reader struct {
	o        Options
	line     int
	entries  []policy.Entry
	seen     map[policy.Key]policy.Entry
	warnings []string
	problems policy.Problems

	columns  []string // of a CSV
	inside   bool     // nft: between the braces of elements
	quoted   bool     // nft: and inside a comment
	element  string   // nft: begun on an earlier line
	networks bool     // postfix: a mynetworks goes on
}

func (in *reader) warn(format string, args ...any) {
	in.warnings = append(in.warnings, fmt.Sprintf("%s:%d: ", in.o.Name, in.line)+fmt.Sprintf(format, args...))
}

// word is a field of a line, and where it begins.
type word struct {
	text   string
	offset int
}

// split cuts a line at characters of a set, up to a comment.
func split(line, at, comment string) []word {
	var out []word
	for i := 0; i < len(line); {
		if strings.ContainsRune(at, rune(line[i])) {
			i++
			continue
		}
		if strings.ContainsRune(comment, rune(line[i])) {
			break
		}
		n := strings.IndexAny(line[i:], at)
		if n < 0 {
			n = len(line) - i
		}
		out = append(out, word{line[i : i+n], i})
		i += n
	}
	return out
}

// add takes a prefix, an address or a range of addresses.
func (in *reader) add(w word, e policy.Entry) error {
	prefixes, warning, err := parse(w.text)
	if err != nil {
		return badf(w.offset, "%s", err)
	}
	if warning != "" {
		in.warn("%s", warning)
	}
	if e.Action == "" {
		e.Action = in.o.Action
	}
	e.Origin = policy.Operator
	for _, p := range prefixes {
		e.Prefix = p
		entry, _, err := policy.New(e, nil)
		if err != nil {
			return badf(w.offset, "%s %s: %s", e.Action, p, err)
		}
		if was, twice := in.seen[entry.Key()]; twice {
			if !was.Same(entry) {
				in.warn("%s stands there already, and otherwise; the first is taken", p)
			}
			continue
		}
		in.seen[entry.Key()] = entry
		in.entries = append(in.entries, entry)
	}
	return nil
}

func parse(s string) ([]netip.Prefix, string, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		p, warning, err := policy.ParsePrefix(s)
		return []netip.Prefix{p}, warning, err
	}
	from, err1 := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	if err1 != nil || err2 != nil || from.Is4() != to.Is4() || to.Less(from) {
		return nil, "", fmt.Errorf("range %q: write two addresses, the lower first", s)
	}
	return between(from, to), "", nil
}

// between are the prefixes that make up a range of addresses, two for each bit
// of an address at most.
func between(from, to netip.Addr) (out []netip.Prefix) {
	for from.IsValid() && !to.Less(from) {
		best := netip.PrefixFrom(from, from.BitLen())
		for bits := from.BitLen() - 1; bits >= 0; bits-- {
			p := netip.PrefixFrom(from, bits)
			if p.Masked().Addr() != from || to.Less(end(p)) {
				break
			}
			best = p
		}
		out = append(out, best)
		from = end(best).Next()
	}
	return out
}

// end is the last address of a prefix.
func end(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
