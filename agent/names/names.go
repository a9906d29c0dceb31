package names

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/synward/synward/agent/policy"
)

// maxPrefixes is how many prefixes a name may stand for.
const maxPrefixes = 10_000

// Result is what stands behind a name now.
type Result struct {
	Prefixes []netip.Prefix // sorted, none inside another; at least one
	TTL      time.Duration  // for how long it holds, up to a day
	Notes    []string       // what could not be expanded, a line for each
}

// Resolve finds the prefixes of a name in the form of policy.ParseName:
// addresses for a host, sources for an SPF record. Errors: ErrEmpty,
// ErrTemporary, a *PermError where the SPF record is wrong, or the context's.
func (r *Resolver) Resolve(ctx context.Context, name string) (Result, error) {
	var res Result
	var err error
	if domain, ok := strings.CutPrefix(name, policy.SPFPrefix); ok {
		res, err = r.spf(ctx, domain)
	} else {
		res, err = r.host(ctx, name)
	}
	switch {
	case err != nil:
		return Result{}, err
	case len(res.Prefixes) == 0 && len(res.Notes) > 0:
		return Result{}, fmt.Errorf("%w it that can be expanded: %s", ErrEmpty, strings.Join(res.Notes, "; "))
	case len(res.Prefixes) == 0:
		return Result{}, fmt.Errorf("%w it: no such name, or it has no address", ErrEmpty)
	case len(res.Prefixes) > maxPrefixes:
		return Result{}, fmt.Errorf("%d prefixes; at most %d", len(res.Prefixes), maxPrefixes)
	}
	return res, nil
}

func (r *Resolver) host(ctx context.Context, name string) (Result, error) {
	addrs, ttl, err := r.addresses(ctx, name)
	if err != nil {
		return Result{}, err
	}
	res := Result{TTL: ttl}
	for _, a := range addrs {
		// What no packet can come from is a way of saying "no address".
		if a.IsUnspecified() || a.IsMulticast() {
			res.Notes = append(res.Notes, fmt.Sprintf("%s is no source's address", a))
			continue
		}
		res.Prefixes = append(res.Prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	res.Prefixes = policy.Compact(res.Prefixes)
	return res, nil
}

func contains(outer, p netip.Prefix) bool {
	return outer.Bits() <= p.Bits() && outer.Contains(p.Addr())
}
