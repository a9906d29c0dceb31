package feeds

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/synward/synward/agent/policy"
)

// ErrEmpty is a list without a single prefix.
var ErrEmpty = errors.New("no prefix in it")

// Bounds of a list.
const (
	maxLine  = 4 << 10 // bytes
	badShare = 20      // one line in so many may be bad; of a list that is worse, nothing is taken
	maxShown = 3       // bad lines that are told
)

// List is what a feed says.
type List struct {
	Prefixes []netip.Prefix // sorted, none inside another; at least one
	Notes    []string       // of lines that were left out
}

// Parse reads a list, one prefix or address a line, of at most most prefixes:
//
//	192.0.2.0/24                      # plain; what follows a blank, # or ; is left
//	192.0.2.0/24 ; SBL123
//	{"cidr":"192.0.2.0/24","id":"x"}  lines of JSON; those without cidr, ip or address are left
//
// Bad lines are left out and noted while they are few.
func Parse(r io.Reader, most int) (List, error) {
	var l List
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n, said, bad := 0, 0, 0
	for lines.Scan() {
		n++
		word, err := entry(lines.Text())
		if err == nil && word == "" {
			continue
		}
		said++
		var p netip.Prefix
		if err == nil {
			p, _, err = policy.ParsePrefix(word)
		}
		if err != nil {
			if bad++; bad <= maxShown {
				l.Notes = append(l.Notes, fmt.Sprintf("line %d left out: %v", n, err))
			}
			continue
		}
		if l.Prefixes = append(l.Prefixes, p); len(l.Prefixes) > most {
			return List{}, fmt.Errorf("more than %d prefixes", most)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return List{}, fmt.Errorf("line %d is longer than %d bytes: not a list of prefixes", n+1, maxLine)
	case err != nil:
		return List{}, err
	case bad*badShare > said && bad > 0:
		return List{}, fmt.Errorf("%d of %d lines are bad: %s", bad, said, l.Notes[0])
	case len(l.Prefixes) == 0:
		return List{}, ErrEmpty
	}
	if bad > maxShown {
		l.Notes = append(l.Notes, fmt.Sprintf("%d more lines left out", bad-maxShown))
	}
	l.Prefixes = policy.Compact(l.Prefixes)
	return l, nil
}

// entry is the prefix's text on a line; "" where the line has none.
func entry(line string) (string, error) {
	line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
	if strings.HasPrefix(line, "{") {
		return jsonEntry(line)
	}
	if i := strings.IndexAny(line, "#; \t,"); i >= 0 {
		line = line[:i]
	}
	if strings.HasPrefix(line, "//") {
		return "", nil
	}
	if len(line) > 64 {
		return "", errors.New("not a prefix")
	}
	return line, nil
}

func jsonEntry(line string) (string, error) {
	var doc struct {
		CIDR    string `json:"cidr"`
		IP      string `json:"ip"`
		Address string `json:"address"`
	}
	if err := json.Unmarshal([]byte(line), &doc); err != nil {
		return "", errors.New("not a line of JSON with a cidr")
	}
	for _, s := range []string{doc.CIDR, doc.IP, doc.Address} {
		if len(s) > 64 {
			return "", errors.New("not a prefix")
		}
		if s != "" {
			return s, nil
		}
	}
	return "", nil
}
