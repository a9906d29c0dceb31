package policy

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// SPFPrefix begins a name that stands for the sources of a domain's SPF record.
const SPFPrefix = "spf:"

// maxName is the length of a domain name in text, in bytes (RFC 1035 2.3.4).
const maxName = 253

// IsName says whether an operator's word means a DNS name or an SPF record
// (office.example.org, spf:partner.example) rather than a prefix: it has a dot
// and does not end like an address. Whether it is a good one says ParseName.
func IsName(s string) bool {
	if strings.HasPrefix(s, SPFPrefix) {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	i := strings.LastIndexByte(s, '.')
	return i > 0 && i < len(s)-1 && !strings.ContainsAny(s, ":/%") && (s[i+1] < '0' || s[i+1] > '9')
}

// ParseName reads a name as an operator writes it and returns its one form:
// lower case, without the last dot, in the ASCII form of RFC 5890.
func ParseName(s string) (string, error) {
	domain, isSPF := strings.CutPrefix(s, SPFPrefix)
	domain = strings.TrimSuffix(domain, ".")
	if strings.ContainsFunc(domain, func(r rune) bool { return r >= 0x80 }) {
		ascii, err := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false)).ToASCII(domain)
		if err != nil {
			return "", fmt.Errorf("name %q: no domain name has such characters", s)
		}
		domain = ascii
	}
	domain = strings.ToLower(domain)
	if err := checkDomain(domain); err != nil {
		return "", fmt.Errorf("name %q: %w", s, err)
	}
	if isSPF {
		return SPFPrefix + domain, nil
	}
	return domain, nil
}

func checkDomain(domain string) error {
	if len(domain) > maxName {
		return fmt.Errorf("%d bytes long; at most %d", len(domain), maxName)
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		return errors.New("write it in full, such as office.example.org")
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return errors.New("each part between dots has 1 to 63 characters")
		}
		if strings.ContainsFunc(l, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return errors.New("letters, digits, dash and underscore only, and dots between")
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return errors.New("it ends like an address")
	}
	return nil
}

// checkName says whether the entry may come of the name that it has, and
// whether what others decide about would get the relay right.
func (e Entry) checkName() error {
	if e.Relay && e.Origin == Feed {
		return errors.New("relay: what a feed lists never has that right")
	}
	if e.Name == "" {
		return nil
	}
	if e.Origin != Operator {
		return fmt.Errorf("name %q: only an entry of origin operator comes of one", e.Name)
	}
	if name, err := ParseName(e.Name); err != nil || name != e.Name {
		return fmt.Errorf("name %q: not in its one form", e.Name)
	}
	if e.Relay && strings.HasPrefix(e.Name, SPFPrefix) {
		return fmt.Errorf("relay on %s: the ranges of an SPF record are shared with strangers; give the right to single addresses", e.Name)
	}
	return nil
}
