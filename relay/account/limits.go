package account

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// ValidateDomain says what is wrong with a domain in a list: it is example.org,
// or .example.org for all domains below it, in ASCII.
func ValidateDomain(s string) error {
	name := strings.TrimPrefix(s, ".")
	bad := name == "" || len(name) > 253 || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..")
	for _, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		bad = bad || !alnum && c != '-' && c != '.' && c != '_'
	}
	if bad {
		return fmt.Errorf("%q is not a domain: write example.org, or .example.org for all below it (one that is not ASCII in its xn-- form)", s)
	}
	return nil
}

// InDomains says whether domain, however it is spelled, is on a list as
// ValidateDomain has it.
func InDomains(list []string, domain string) bool {
	if len(list) == 0 {
		return false
	}
	name := strings.ToLower(domain)
	if strings.IndexFunc(domain, func(r rune) bool { return r >= 0x80 }) >= 0 {
		if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
			name = ascii
		}
	}
	for _, d := range list {
		switch {
		case strings.EqualFold(d, name):
			return true
		case d[0] == '.' && len(name) > len(d) && strings.EqualFold(name[len(name)-len(d):], d):
			return true
		}
	}
	return false
}

// MayReach says whether a may send to recipients in domain. What is denied is
// denied, also where it is on the list of what is allowed.
func (a Account) MayReach(domain string) bool {
	return !InDomains(a.Denied, domain) && (len(a.Domains) == 0 || InDomains(a.Domains, domain))
}

// validateLimits checks what bounds an account.
func (a Account) validateLimits() error {
	for _, d := range append(append([]string(nil), a.Domains...), a.Denied...) {
		if err := ValidateDomain(d); err != nil {
			return err
		}
	}
	if a.Quota != nil {
		if err := a.Quota.Validate(); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
	}
	switch {
	case a.MaxSize < 0 || a.MaxSize > 0 && a.MaxSize < 1024:
		return fmt.Errorf("max_size %d is less than 1024 bytes; 0 is for no limit of his own", a.MaxSize)
	case a.MaxRecipients < 0:
		return errors.New("max_recipients is negative; 0 is for no limit of his own")
	}
	return nil
}
