package imports

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/synward/synward/agent/policy"
)

// ipset is what ipset save writes.
func (in *reader) ipset(line string) error {
	line, note := cutNote(line)
	words := split(line, " \t\r", "#")
	if len(words) == 0 || words[0].text != "add" && words[0].text != "-A" {
		return nil
	}
	if len(words) < 3 {
		return badf(words[0].offset, "no element: write add SET ADDRESS")
	}
	e := policy.Entry{Note: note}
	for i, w := range words[3:] {
		if w.text == "nomatch" {
			e.Action = policy.Deny
		}
		if w.text == "timeout" {
			if err := in.ends(&e, words[3+i:], 0); err != nil {
				return err
			}
		}
	}
	address, port, hasPort := strings.Cut(words[2].text, ",")
	if hasPort {
		_, number, named := strings.Cut(port, ":")
		if !named {
			number = port
		}
		var err error
		if e.Ports, err = policy.ParsePorts(number, nil); err != nil || strings.HasPrefix(port, "udp") {
			return badf(words[2].offset, "element %q: only an address, or an address and a TCP port", words[2].text)
		}
	}
	return in.add(word{address, words[2].offset}, e)
}

// nft takes the elements of sets out of what nft list writes.
func (in *reader) nft(line string) error {
	from := 0
	for i := 0; i <= len(line); i++ {
		switch {
		case !in.inside:
			if n := strings.Index(line[min(i, len(line)):], "elements = {"); n < 0 {
				return nil
			} else {
				i += n + len("elements = {") - 1
			}
			in.inside, in.element, from = true, "", i+1
		case i == len(line):
			in.element = strings.TrimLeft(in.element+line[from:]+" ", " \t")
		case line[i] == '"':
			in.quoted = !in.quoted
		case !in.quoted && (line[i] == ',' || line[i] == '}'):
			element, at := in.element+line[from:i], from-len(in.element)
			in.element, in.inside = "", line[i] == ','
			if err := in.nftElement(element, at); err != nil {
				return err
			}
			from = i + 1
		}
	}
	return nil
}

func (in *reader) nftElement(element string, offset int) error {
	element, note := cutNote(element)
	words := split(element, " \t\r", "")
	if len(words) == 0 {
		return nil
	}
	e := policy.Entry{Note: note}
	for i, w := range words {
		if w.text == "timeout" || w.text == "expires" { // the second is what is left of the first, and stands after it
			if err := in.ends(&e, words[i:], offset); err != nil {
				return err
			}
		}
	}
	return in.add(word{words[0].text, max(0, offset+words[0].offset)}, e)
}

// cutNote takes the comment out of an element, and leaves blanks in its place.
func cutNote(s string) (without, note string) {
	const begin = ` comment "`
	before, after, ok := strings.Cut(s, begin)
	if !ok {
		return s, ""
	}
	note, after, _ = strings.Cut(after, `"`)
	return before + strings.Repeat(" ", len(begin)+len(note)+1) + after, note
}

// ends gives an entry the end that an element has: words are "timeout" or
// "expires", and a time from now on. Zero or "never" is none.
func (in *reader) ends(e *policy.Entry, words []word, offset int) error {
	if len(words) < 2 {
		return badf(max(0, offset+words[0].offset), "%s: no time after it", words[0].text)
	}
	what, v := words[0].text, words[1]
	left, err := lifetime(v.text)
	if err == nil && left == 0 && what == "timeout" {
		e.Expires = time.Time{}
		return nil
	}
	if err == nil {
		left, err = policy.ParseTTL(max(left, time.Second).String())
	}
	if err != nil {
		return badf(max(0, offset+v.offset), "%s %q: %s", what, v.text, err)
	}
	e.Expires = in.o.Now.Add(left)
	return nil
}

// errLifetime is of a time that neither nft nor ipset writes.
var errLifetime = errors.New("write it such as 1d2h3m4s, or a number of seconds")

// lifetime reads a time as nft (1d2h3m4s500ms) and ipset (seconds) write it.
func lifetime(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, errLifetime
	}
	var d time.Duration
	if rest != "" || !hasDays {
		if d, err = time.ParseDuration(rest); err != nil || d < 0 {
			return 0, errLifetime
		}
	}
	return time.Duration(n)*24*time.Hour + d, nil
}
