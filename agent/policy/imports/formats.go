package imports

import (
	"encoding/csv"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/agent/policy"
)

// plain is one prefix or more a line; # and ; begin comments.
func (in *reader) plain(line string) error {
	for _, w := range split(line, " \t\r,", "#;") {
		if err := in.add(w, policy.Entry{}); err != nil {
			return err
		}
	}
	return nil
}

// The columns that a CSV may have, by the words that head them.
var csvColumns = map[string]string{
	"prefix": "prefix", "cidr": "prefix", "network": "prefix", "address": "prefix", "ip": "prefix", "source": "prefix",
	"action": "action", "ports": "ports", "port": "ports", "expires": "expires",
	"note": "note", "comment": "note", "description": "note", "name": "note",
}

// csv is a table: with a line of headings, or the prefix first and then a note.
func (in *reader) csv(line string) error {
	if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	r := csv.NewReader(strings.NewReader(line))
	if strings.Count(line, ";") > strings.Count(line, ",") {
		r.Comma = ';'
	}
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		return badf(0, "not CSV: %s", errors.Unwrap(err))
	}
	if in.columns == nil {
		in.columns = []string{"prefix", "note"}
		if headings := headings(fields); slices.Contains(headings, "prefix") {
			in.columns = headings
			return nil
		}
	}
	var e policy.Entry
	var prefix word
	for i, f := range fields[:min(len(fields), len(in.columns))] {
		_, column := r.FieldPos(i)
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		var err error
		switch in.columns[i] {
		case "prefix":
			prefix = word{f, column - 1}
		case "action":
			e.Action = policy.Action(strings.ToLower(f))
		case "ports":
			e.Ports, err = policy.ParsePorts(strings.Join(strings.FieldsFunc(f, func(r rune) bool { return strings.ContainsRune(" ,;/", r) }), ","), nil)
		case "expires":
			e.Expires, err = time.Parse(time.RFC3339, f)
		case "note":
			e.Note = strings.ReplaceAll(f, `"`, "'")
		}
		if err != nil {
			return badf(column-1, "%s: %s", in.columns[i], err)
		}
	}
	if prefix.text == "" {
		return badf(0, "no prefix on this line")
	}
	return in.add(prefix, e)
}

func headings(fields []string) (out []string) {
	for _, f := range fields {
		out = append(out, csvColumns[strings.ToLower(strings.TrimSpace(f))])
	}
	return out
}

// postfix is mynetworks, alone or as in main.cf, or a CIDR table.
func (in *reader) postfix(line string) error {
	words := split(line, " \t\r,", "#")
	if len(words) == 0 {
		return nil
	}
	continued := words[0].offset > 0
	if name, rest, ok := strings.Cut(line, "="); ok && !continued && !strings.Contains(line, "#") {
		if in.networks = strings.TrimSpace(name) == "mynetworks"; !in.networks {
			return nil // another setting of main.cf
		}
		return in.addresses(split(strings.Repeat(" ", len(name)+1)+rest, " \t\r,", "#"))
	}
	if continued && in.networks {
		return in.addresses(words)
	}
	if len(words) == 1 || isAddress(words[1].text) {
		return in.addresses(words)
	}
	action, known := tableAction(words[1].text)
	switch {
	case strings.EqualFold(words[0].text, "if") || strings.EqualFold(words[0].text, "endif"):
		return badf(words[0].offset, "if and endif cannot be imported; write the table without them")
	case !known:
		return badf(words[1].offset, "result %q: neither OK nor REJECT; an entry can only allow or deny", words[1].text)
	case action == "":
		in.warn("%s %s says nothing of its own and is left out", words[0].text, words[1].text)
		return nil
	}
	return in.address(words[0], action)
}

func isAddress(s string) bool {
	_, _, err := parse(unbracket(strings.TrimPrefix(s, "!")))
	return err == nil
}

// unbracket takes the brackets off an IPv6 address as Postfix writes it.
func unbracket(s string) string {
	return strings.NewReplacer("[", "", "]", "").Replace(s)
}

func tableAction(s string) (policy.Action, bool) {
	switch s = strings.ToUpper(s); {
	case slices.Contains([]string{"OK", "PERMIT", "RELAY", "PERMIT_AUTH_DESTINATION"}, s):
		return policy.Allow, true
	case slices.Contains([]string{"REJECT", "DISCARD", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT"}, s),
		len(s) == 3 && (s[0] == '4' || s[0] == '5'):
		return policy.Deny, true
	case s == "DUNNO":
		return "", true
	}
	return "", false
}

func (in *reader) addresses(words []word) error {
	for _, w := range words {
		if strings.ContainsAny(w.text, "/:") && strings.Contains(w.text, ":/") || strings.HasPrefix(w.text, "/") {
			return badf(w.offset, "%q names a file or table: import that", w.text)
		}
		if err := in.address(w, ""); err != nil {
			return err
		}
	}
	return nil
}

func (in *reader) address(w word, action policy.Action) error {
	text, not := strings.CutPrefix(w.text, "!")
	if not {
		action = policy.Deny
	}
	return in.add(word{unbracket(text), w.offset}, policy.Entry{Action: action})
}
