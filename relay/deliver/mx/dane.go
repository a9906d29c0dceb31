package mx

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/synward/synward/relay/deliver"
)

// dane protects a hop as its TLSA records ask, if it has any that DNSSEC
// vouches for (RFC 7672 2.2). Where they cannot be had for now, neither can the
// hop: an attacker could have suppressed them.
func (r *Router) dane(ctx context.Context, hop *deliver.Hop) (bool, error) {
	res, err := r.opt.Resolver.lookup(ctx, fmt.Sprintf("_%d._tcp.%s", r.opt.Port, hop.Host), dns.TypeTLSA)
	if err == nil {
		err = res.err
	}
	if err != nil {
		return false, err
	}
	if !res.secure || len(res.records) == 0 {
		return false, nil
	}
	var lines []string
	for _, rr := range res.records {
		if t, ok := rr.(*dns.TLSA); ok && deliver.UsableTLSA(t.Usage, t.Selector, t.MatchingType) {
			lines = append(lines, fmt.Sprintf("%d %d %d %s\n", t.Usage, t.Selector, t.MatchingType, strings.ToLower(t.Certificate)))
		}
	}
	if len(lines) == 0 {
		hop.TLS = deliver.Encrypted // records, but none that SMTP knows
		return true, nil
	}
	slices.Sort(lines) // so that equal sets make equal hops
	hop.TLS, hop.TLSA = deliver.DANE, strings.Join(slices.Compact(lines), "")
	return true, nil
}
