package relay

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// path is a sender or a recipient (RFC 5321 section 4.1.2), its local part
// without quotes. The zero path is the null sender.
type path struct{ local, domain string }

// The bounds of RFC 5321 section 4.5.3.1, in bytes.
const (
	maxLocal  = 64
	maxDomain = 255
	maxPath   = 254
)

var errPath = errors.New("bad address")

// null says whether p is the null sender.
func (p path) null() bool { return p == path{} }

// ascii says whether p goes without SMTPUTF8.
func (p path) ascii() bool { return isASCII(p.local) && isASCII(p.domain) }

// String is p in the one form in which we hand it on: the local part quoted
// where, and only where, it must be.
func (p path) String() string {
	if p.null() {
		return ""
	}
	if validDotString(p.local) {
		return p.local + "@" + p.domain
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(p.local); i++ {
		if c := p.local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(p.local[i])
	}
	b.WriteString("\"@")
	b.WriteString(p.domain)
	return b.String()
}

// parsePath reads <local@domain> at the head of s and returns what follows it.
// "<>" is the null path; "<postmaster>" has an empty domain. Source routes,
// missing brackets and all that RFC 5321's grammar has not are refused.
func parsePath(s string) (p path, rest string, err error) {
	if !strings.HasPrefix(s, "<") {
		return path{}, "", errPath
	}
	s = s[1:]
	if rest, ok := strings.CutPrefix(s, ">"); ok {
		return path{}, rest, nil
	}
	if len(s) >= 11 && strings.EqualFold(s[:11], "postmaster>") {
		return path{local: s[:10]}, s[11:], nil
	}
	if p.local, s, err = parseLocal(s); err != nil {
		return path{}, "", err
	}
	s, ok := strings.CutPrefix(s, "@")
	end := strings.IndexByte(s, '>')
	if !ok || end < 0 || !validDomain(s[:end]) {
		return path{}, "", errPath
	}
	p.domain = s[:end]
	if len(p.String()) > maxPath {
		return path{}, "", errPath
	}
	return p, s[end+1:], nil
}

// parseLocal reads a local part, quoted or not, and returns it without quotes.
func parseLocal(s string) (local, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, "@>")
		if end < 0 || end > maxLocal || !validDotString(s[:end]) {
			return "", "", errPath
		}
		return s[:end], s[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			if b.Len() == 0 || b.Len() > maxLocal || !utf8.ValidString(b.String()) {
				return "", "", errPath
			}
			return b.String(), s[i+1:], nil
		case c == '\\':
			if i++; i == len(s) || s[i] >= utf8.RuneSelf {
				return "", "", errPath
			}
			c = s[i]
		}
		if c < ' ' || c == 0x7f {
			return "", "", errPath
		}
		b.WriteByte(c)
	}
	return "", "", errPath
}

// validDotString says whether s is atoms joined by dots. Beyond ASCII, every
// letter, mark, number or pictograph counts as an atom's text (RFC 6531).
func validDotString(s string) bool {
	if s == "" || len(s) > maxLocal || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		if r >= utf8.RuneSelf {
			if !validBeyondASCII(r) {
				return false
			}
			continue
		}
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r) {
			return false
		}
	}
	return true
}

// validDomain says whether s is a domain name (LDH, or Unicode labels) or an
// address literal.
func validDomain(s string) bool {
	if lit, ok := strings.CutPrefix(s, "["); ok {
		return validLiteral(lit)
	}
	if s == "" || len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			ldh := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
			if !ldh && (r < utf8.RuneSelf || !validBeyondASCII(r)) {
				return false
			}
		}
	}
	return true
}

// validLiteral checks an address literal after its opening bracket.
func validLiteral(s string) bool {
	s, ok := strings.CutSuffix(s, "]")
	if !ok {
		return false
	}
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		a, err := netip.ParseAddr(s[5:])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

// validBeyondASCII keeps out what cannot be seen, reorders what can, or turns
// into a separator when a later hop normalizes it (the full-width @ and full
// stop): spaces, controls, formats, punctuation, and bytes that are no UTF-8.
func validBeyondASCII(r rune) bool {
	return r != utf8.RuneError && unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.So)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
