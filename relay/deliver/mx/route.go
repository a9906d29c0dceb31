package mx

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/relay/deliver"
)

const (
	maxHosts = 10 // of a domain that are looked at, the best ones
	maxAddrs = 20 // hops of a route; RFC 5321 5.1 asks for two at least
)

// Options are what a Router is made of.
type Options struct {
	Resolver *Resolver
	Hostname string // ours: mail is never sent back to it
	NoIPv6   bool   // this host cannot reach IPv6
	NoSTS    bool   // MTA-STS policies are not asked for
	Policies string // the file that they are kept in; empty: until the process ends
	NoDANE   bool   // TLSA records are not asked for; else they are where the resolver is trusted
	Log      *slog.Logger
	Now      func() time.Time

	Port       int          // of the servers, 25
	AllowLocal bool         // a domain's servers may have addresses of this host or link
	Client     *http.Client // for policies, nil: a bounded one of our own
}

// Router finds the servers of a domain. It is a deliver.Router.
type Router struct {
	opt      Options
	policies *policies
}

// New makes a Router.
func New(o Options) *Router {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "mx")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Port == 0 {
		o.Port = 25
	}
	return &Router{opt: o, policies: newPolicies(o)}
}

// host is one server of a domain.
type host struct {
	name string
	pref uint16
}

func refuse(code int, enhanced, text string) error {
	return &deliver.RouteError{Code: code, Enhanced: enhanced, Text: text}
}

// Route returns the servers of domain, the best first, each with how it must
// be protected.
func (r *Router) Route(ctx context.Context, domain string) ([]deliver.Hop, error) {
	if strings.HasPrefix(domain, "[") {
		return r.literal(domain)
	}
	name, err := toASCII(domain)
	if err != nil {
		return nil, refuse(550, "5.1.2", "bad domain "+domain)
	}
	hosts, secure, err := r.hosts(ctx, name)
	if err != nil {
		return nil, err
	}
	if hosts, err = r.withoutUs(hosts, name); err != nil {
		return nil, err
	}
	policy := r.policies.of(ctx, name)
	var hops []deliver.Hop
	var cause error
	for _, h := range hosts {
		more, err := r.hops(ctx, name, h, secure, policy)
		if err != nil {
			cause = err
		}
		hops = append(hops, more...)
	}
	var said *deliver.RouteError
	switch {
	case len(hops) > 0:
		return hops[:min(len(hops), maxAddrs)], nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(cause, &said):
		return nil, cause
	case cause != nil:
		return nil, refuse(451, "4.4.3", cause.Error())
	}
	return nil, refuse(550, "5.4.4", "no mail server of "+name+" has an address")
}

// hosts returns the servers in the order that they are to be tried in: by
// preference, those of one in any order (RFC 5321 5.1).
func (r *Router) hosts(ctx context.Context, name string) (list []host, secure bool, err error) {
	res, err := r.opt.Resolver.lookup(ctx, name, dns.TypeMX)
	switch {
	case err != nil:
		return nil, false, err
	case res.err != nil:
		return nil, false, refuse(451, "4.4.3", res.err.Error())
	case res.absent:
		return nil, false, refuse(550, "5.1.2", "domain "+name+" does not exist")
	case len(res.records) == 0:
		return []host{{name: name}}, res.secure, nil // the implicit MX
	}
	for _, rr := range res.records {
		m, ok := rr.(*dns.MX)
		if !ok {
			continue
		}
		if m.Mx == "." {
			if len(res.records) == 1 {
				return nil, false, refuse(556, "5.1.10", "domain "+name+" takes no mail")
			}
			continue
		}
		list = append(list, host{strings.ToLower(strings.TrimSuffix(m.Mx, ".")), m.Preference})
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b host) int { return int(a.pref) - int(b.pref) })
	return list, res.secure, nil
}

// withoutUs cuts off the servers from our own name on: who is no better than
// we are would send the mail back (RFC 5321 5.1).
func (r *Router) withoutUs(list []host, name string) ([]host, error) {
	at := slices.IndexFunc(list, func(h host) bool { return strings.EqualFold(h.name, r.opt.Hostname) })
	if at >= 0 {
		pref := list[at].pref
		list = slices.DeleteFunc(list, func(h host) bool { return h.pref >= pref })
		if len(list) == 0 {
			return nil, refuse(554, "5.4.6", "mail for "+name+" would come back to "+r.opt.Hostname+": it is listed as its mail server, and no route is set")
		}
	}
	return list[:min(len(list), maxHosts)], nil
}

// hops returns the addresses of one server. A *deliver.RouteError says that it
// must not be used, others that it cannot be for now.
func (r *Router) hops(ctx context.Context, domain string, h host, secure bool, p policy) ([]deliver.Hop, error) {
	addrs, secureAddrs, err := r.opt.Resolver.addresses(ctx, h.name, !r.opt.NoIPv6)
	if len(addrs) == 0 {
		return nil, err
	}
	hop := deliver.Hop{Host: h.name, Port: r.opt.Port, TLS: deliver.Opportunistic}
	dane := false
	if secure && secureAddrs && !r.opt.NoDANE && r.opt.Resolver.Trusted() {
		if dane, err = r.dane(ctx, &hop); err != nil {
			return nil, err
		}
	}
	// Where there is DANE it alone decides (RFC 8461 2).
	if !dane && p.mode != modeNone && p.mode != "" {
		if err := p.apply(&hop, domain); err != nil {
			if p.mode == modeEnforce {
				return nil, err
			}
			r.opt.Log.Warn("the domain's MTA-STS policy, which is in testing, would not allow this server", "domain", domain, "next_hop", h.name, "error", err)
		}
	}
	var list []deliver.Hop
	for _, a := range addrs {
		if !r.opt.AllowLocal && local(a) {
			err = refuse(451, "4.4.4", "mail server "+h.name+" of "+domain+" has the address "+a.String()+", which is none of the internet's")
			continue
		}
		hop.Addr = a.String()
		list = append(list, hop)
	}
	if len(list) > 0 {
		err = nil
	}
	return list, err
}

// local says whether an address leads to this host or stays on its link: mail
// sent there by a stranger's MX record would come from a trusted address.
func local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// literal is the way to user@[192.0.2.1] or user@[IPv6:2001:db8::1] (RFC 5321 4.1.3).
func (r *Router) literal(domain string) ([]deliver.Hop, error) {
	s := strings.TrimSuffix(strings.TrimPrefix(domain, "["), "]")
	s = strings.TrimPrefix(s, "ipv6:")
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || !r.opt.AllowLocal && local(a.Unmap()) {
		return nil, refuse(550, "5.1.2", "no mail is sent to the address "+domain)
	}
	return []deliver.Hop{{Host: a.Unmap().String(), Port: r.opt.Port, TLS: deliver.Opportunistic}}, nil
}
