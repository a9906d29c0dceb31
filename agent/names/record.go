package names

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// PermError is an SPF record that no receiver could evaluate either (RFC 7208
// 2.6.7): its domain has to mend it.
type PermError struct {
	Domain string
	Msg    string
}

// Error names the domain and what is wrong with its record.
func (e *PermError) Error() string { return fmt.Sprintf("SPF record of %s: %s", e.Domain, e.Msg) }

// maxTerms is how many mechanisms a record may have. RFC 7208 knows no such
// bound; real records stay well below a hundred.
const maxTerms = 500

// record is an SPF record, taken apart.
type record struct {
	terms    []term
	redirect string // "" = none
}

// term is a mechanism.
type term struct {
	text   string // as it stands in the record
	pass   bool   // what matches it may send
	kind   string // all, include, a, mx, ptr, ip4, ip6 or exists, in lower case
	domain string // "" = the record's own
	prefix netip.Prefix
	bits4  int // for a and mx: of the addresses found
	bits6  int
}

// parseRecord reads the text of a record; the error is what is wrong with it.
func parseRecord(text string) (record, error) {
	var rec record
	words := strings.Fields(text)
	if len(words) == 0 || !strings.EqualFold(words[0], "v=spf1") {
		return rec, fmt.Errorf("it does not begin with v=spf1")
	}
	if len(words) > maxTerms {
		return rec, fmt.Errorf("%d terms are more than %d", len(words), maxTerms)
	}
	for _, w := range words[1:] {
		if name, value, ok := modifier(w); ok {
			if strings.EqualFold(name, "redirect") {
				if rec.redirect != "" || value == "" {
					return rec, fmt.Errorf("%q: one redirect, to a domain", w)
				}
				rec.redirect = value
			}
			continue // exp, and what is not known, say nothing of sources
		}
		t, err := parseTerm(w)
		if err != nil {
			return rec, fmt.Errorf("%q: %w", w, err)
		}
		rec.terms = append(rec.terms, t)
	}
	return rec, nil
}

// modifier takes name=value apart. A = further on belongs to a mechanism's domain.
func modifier(w string) (name, value string, ok bool) {
	i := strings.IndexAny(w, "=:/")
	if i <= 0 || w[i] != '=' || !isLetter(w[0]) {
		return "", "", false
	}
	return w[:i], w[i+1:], true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func parseTerm(w string) (term, error) {
	t := term{text: w, pass: true, bits4: 32, bits6: 128}
	if strings.IndexByte("+-~?", w[0]) >= 0 {
		t.pass = w[0] == '+'
		w = w[1:]
	}
	i := strings.IndexAny(w, ":/")
	if i < 0 {
		i = len(w)
	}
	t.kind = strings.ToLower(w[:i])
	rest := w[i:]
	var err error
	switch t.kind {
	case "all":
		if rest != "" {
			err = fmt.Errorf("all stands alone")
		}
	case "ip4", "ip6":
		err = t.address(rest)
	case "a", "mx":
		err = t.host(rest)
	case "include", "exists":
		if t.domain = strings.TrimPrefix(rest, ":"); t.domain == "" || rest[0] != ':' {
			err = fmt.Errorf("%s needs a domain", t.kind)
		}
	case "ptr":
		t.domain = strings.TrimPrefix(rest, ":")
	default:
		err = fmt.Errorf("no such mechanism")
	}
	return t, err
}

// address reads what follows ip4 or ip6.
func (t *term) address(rest string) error {
	text, ok := strings.CutPrefix(rest, ":")
	if !ok {
		return fmt.Errorf("%s needs an address", t.kind)
	}
	if !strings.Contains(text, "/") {
		text += map[string]string{"ip4": "/32", "ip6": "/128"}[t.kind]
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4() != (t.kind == "ip4") {
		return fmt.Errorf("not an address of %s", t.kind)
	}
	t.prefix = p.Masked()
	return nil
}

// host reads what follows a or mx: [:domain][/bits4][//bits6]. A macro may hold
// a slash too.
func (t *term) host(rest string) error {
	from := strings.LastIndexByte(rest, '}') + 1
	lengths := ""
	if i := strings.IndexByte(rest[from:], '/'); i >= 0 {
		rest, lengths = rest[:from+i], rest[from+i:]
	}
	if rest != "" {
		if t.domain = rest[1:]; rest[0] != ':' || t.domain == "" {
			return fmt.Errorf("%s: a domain is missing", t.kind)
		}
	}
	if lengths == "" {
		return nil
	}
	four, six, both := strings.Cut(lengths[1:], "//")
	if strings.HasPrefix(lengths, "//") {
		four, six, both = "", lengths[2:], true
	}
	var ok4, ok6 = true, true
	if four != "" || !both {
		t.bits4, ok4 = length(four, 32)
	}
	if both {
		t.bits6, ok6 = length(six, 128)
	}
	if !ok4 || !ok6 {
		return fmt.Errorf("not a prefix length")
	}
	return nil
}

func length(s string, most int) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= most && strconv.Itoa(n) == s
}
