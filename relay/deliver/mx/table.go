package mx

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/net/idna"

	"github.com/synward/synward/relay/deliver"
)

// Table is a deliver.Router by domain, each by a Router of its own. A key is a
// domain, or .domain for all domains below it; the longest that fits counts.
type Table struct {
	Domains map[string]deliver.Router // in lower case, in ASCII
	Default deliver.Router
}

// Route asks the router that domain belongs to.
func (t Table) Route(ctx context.Context, domain string) ([]deliver.Hop, error) {
	r := t.Default
	if name, err := toASCII(domain); err == nil {
		if via, ok := t.find(name); ok {
			r = via
		}
	}
	if r == nil {
		return nil, errors.New("no way is set for " + domain)
	}
	return r.Route(ctx, domain)
}

func (t Table) find(name string) (deliver.Router, bool) {
	if r, ok := t.Domains[name]; ok {
		return r, true
	}
	for {
		_, parent, more := strings.Cut(name, ".")
		if !more {
			return nil, false
		}
		if r, ok := t.Domains["."+parent]; ok {
			return r, true
		}
		name = parent
	}
}

// toASCII is a domain as DNS has it (RFC 5891).
func toASCII(domain string) (string, error) {
	s, err := idna.Lookup.ToASCII(strings.TrimSuffix(domain, "."))
	if err != nil && isASCII(domain) { // such as one with an underscore: DNS has them
		return strings.ToLower(strings.TrimSuffix(domain, ".")), nil
	}
	return s, err
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
