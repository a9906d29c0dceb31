// Package account is what the relay knows of a user: a name, a password hash
// and the senders that he may use. It is pure: it stores nothing and logs
// nothing, and no password leaves it.
package account

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/synward/synward/relay/quota"
)

// Account is one user of the relay.
type Account struct {
	Name     string    `json:"name"`               // see ValidateName
	Hash     string    `json:"hash"`               // argon2id, PHC string; or one that was imported
	Scram    string    `json:"scram,omitempty"`    // SCRAM-SHA-256, RFC 5803; empty = may not use it
	Disabled bool      `json:"disabled,omitempty"` // kept, but may not log in
	Senders  []string  `json:"senders,omitempty"`  // addresses or domains; empty = any
	Created  time.Time `json:"created,omitzero"`   // when

	Domains       []string `json:"domains,omitempty"`        // that he may send to; empty = any
	Denied        []string `json:"denied_domains,omitempty"` // that he may not send to
	MaxSize       int64    `json:"max_size,omitempty"`       // bytes of a message; 0 = the relay's
	MaxRecipients int      `json:"max_recipients,omitempty"` // of a message; 0 = the relay's

	Quota *quota.Limits `json:"quota,omitempty"` // nil = the relay's for users
}

// maxName bounds a name in bytes; an address as a name fits.
const maxName = 128

// ValidateName says what is wrong with a user's name: it is 1 to 128 of lower
// case letters, digits and . _ - + @, and begins with a letter or a digit.
func ValidateName(name string) error {
	switch {
	case name == "":
		return errors.New("user name is empty: give one of lower case letters, digits and . _ - + @")
	case len(name) > maxName:
		return fmt.Errorf("user name has %d bytes: use at most %d", len(name), maxName)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if alnum || i > 0 && strings.IndexByte("._-+@", c) >= 0 {
			continue
		}
		return fmt.Errorf("user name %q has %q at byte %d: use lower case letters, digits and . _ - + @, beginning with a letter or a digit", name, string(rune(c)), i+1)
	}
	return nil
}

// ValidateSender says what is wrong with an entry of Senders: it is an address
// (a@example.org) or a domain (example.org, @example.org).
func ValidateSender(s string) error {
	local, domain, isAddr := strings.Cut(s, "@")
	if !isAddr {
		local, domain = "", s
	}
	bad := domain == "" || strings.ContainsAny(s, " \t\r\n\x00<>,;\"") || strings.Contains(domain, "@") ||
		strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || isAddr && local == "" && !strings.HasPrefix(s, "@")
	if bad {
		return fmt.Errorf("sender %q is neither an address nor a domain: write a@example.org or example.org", s)
	}
	return nil
}

// Validate checks every field of a.
func (a Account) Validate() error {
	if err := ValidateName(a.Name); err != nil {
		return err
	}
	if err := validateHash(a.Hash); err != nil {
		return fmt.Errorf("password hash of user %s: %w", a.Name, err)
	}
	if _, err := parseScram(a.Scram); a.Scram != "" && err != nil {
		return fmt.Errorf("user %s: %w", a.Name, err)
	}
	for _, s := range a.Senders {
		if err := ValidateSender(s); err != nil {
			return fmt.Errorf("user %s: %w", a.Name, err)
		}
	}
	if err := a.validateLimits(); err != nil {
		return fmt.Errorf("user %s: %w", a.Name, err)
	}
	return nil
}

// MaySend says whether a may use the sender local@domain. Domains compare
// without case, local parts with it, as RFC 5321 section 2.4 has it.
func (a Account) MaySend(local, domain string) bool {
	if len(a.Senders) == 0 {
		return true
	}
	for _, s := range a.Senders {
		at := strings.LastIndexByte(s, '@')
		if !strings.EqualFold(s[at+1:], domain) {
			continue
		}
		if at <= 0 || s[:at] == local {
			return true
		}
	}
	return false
}
