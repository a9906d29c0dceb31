package mx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver"
)

// Bounds of asking.
const (
	maxQueries = 64 // at once
	minTTL     = 5 * time.Second
	maxTTL     = time.Hour
	failTTL    = 15 * time.Second // a failure is not asked about again for so long
	maxRecords = 64               // of an answer, the rest is ignored
)

// Resolver asks recursive name servers, and remembers.
type Resolver struct {
	servers nameserver.List
	trusted bool // all on this host: their AD bit counts (RFC 4035 4.9.3)
	cache   *cache[result]
	places  chan struct{}
}

// result is an answer to one question.
type result struct {
	records []dns.RR // of the type asked for, aliases followed
	absent  bool     // NXDOMAIN: the name does not exist
	secure  bool     // validated by DNSSEC
	err     error    // temporary
}

// NewResolver returns a resolver that asks servers, each an address with or
// without a port; without any, those in /etc/resolv.conf.
func NewResolver(servers []string, now func() time.Time) (*Resolver, error) {
	l, err := nameserver.Parse(servers, "relay.mx.resolver")
	if err != nil {
		return nil, err
	}
	elsewhere := slices.ContainsFunc(l, func(s netip.AddrPort) bool { return !s.Addr().IsLoopback() })
	return &Resolver{servers: l, trusted: !elsewhere, cache: newCache[result](now), places: make(chan struct{}, maxQueries)}, nil
}

// Trusted says whether the servers' word on DNSSEC counts: only where nobody
// on the way can have changed it.
func (r *Resolver) Trusted() bool { return r.trusted }

// lookup asks for records of one type. The error is ctx's.
func (r *Resolver) lookup(ctx context.Context, name string, typ uint16) (result, error) {
	name = dns.CanonicalName(name)
	return r.cache.get(ctx, dns.TypeToString[typ]+" "+name, func() (result, time.Duration) {
		r.places <- struct{}{}
		defer func() { <-r.places }()
		return r.ask(name, typ)
	})
}

// ask puts the question to the servers in turn.
func (r *Resolver) ask(name string, typ uint16) (result, time.Duration) {
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	q.SetEdns0(1232, r.trusted)
	q.AuthenticatedData = r.trusted
	m, err := r.servers.Ask(context.Background(), q) // others may wait for the answer too
	if err != nil {
		return result{err: fmt.Errorf("look up %s of %s: %w", dns.TypeToString[typ], strings.TrimSuffix(name, "."), err)}, failTTL
	}
	return r.read(m, typ)
}

// read takes the records of the wanted type from an answer.
func (r *Resolver) read(m *dns.Msg, typ uint16) (result, time.Duration) {
	res := result{secure: r.trusted && m.AuthenticatedData}
	ttl := maxTTL
	for _, rr := range m.Answer {
		if t := time.Duration(rr.Header().Ttl) * time.Second; t < ttl {
			ttl = t
		}
		if rr.Header().Rrtype == typ && len(res.records) < maxRecords {
			res.records = append(res.records, rr)
		}
	}
	res.absent = m.Rcode == dns.RcodeNameError
	if len(res.records) == 0 {
		ttl = nameserver.Absence(m, failTTL)
	}
	return res, min(max(ttl, minTTL), maxTTL)
}

// addresses returns the addresses of a host, IPv6 and IPv4 in turn.
func (r *Resolver) addresses(ctx context.Context, host string, ipv6 bool) (list []netip.Addr, secure bool, err error) {
	type family struct {
		result
		err error
	}
	ask := func(typ uint16) chan family {
		c := make(chan family, 1)
		go func() {
			res, err := r.lookup(ctx, host, typ)
			c <- family{res, err}
		}()
		return c
	}
	c4 := ask(dns.TypeA)
	var six family
	if ipv6 {
		six = <-ask(dns.TypeAAAA)
	}
	four := <-c4
	a4, a6 := addrsOf(four.records), addrsOf(six.records)
	for i := range max(len(a4), len(a6)) {
		if i < len(a6) {
			list = append(list, a6[i])
		}
		if i < len(a4) {
			list = append(list, a4[i])
		}
	}
	if len(list) == 0 {
		err = errors.Join(four.err, six.err)
		for _, f := range []family{four, six} {
			if err == nil {
				err = f.result.err
			}
		}
	}
	return list, four.secure && (six.secure || !ipv6), err
}

func addrsOf(records []dns.RR) (list []netip.Addr) {
	for _, rr := range records {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			list = append(list, a.Unmap())
		}
	}
	return list
}
