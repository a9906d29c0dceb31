package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver"
)

// dnsTime is how long a name server may take; the doctor's caller waits for it.
const dnsTime = 3 * time.Second

// examineResolvers asks every name server by which next hops, names and SPF
// records are looked up, where there are any.
func examineResolvers(ctx context.Context, p *patient) []finding {
	var servers []string
	if p.file.Relay.Enabled {
		servers = append(servers, p.orHosts(p.file.Relay.MX.Resolver)...)
	} else if len(p.file.Names.Resolver) == 0 && (p.status == nil || len(p.status.Derived) == 0) {
		return nil
	}
	servers = append(servers, p.orHosts(p.file.Names.Resolver)...)
	slices.Sort(servers)
	servers = slices.Compact(servers)
	if len(servers) == 0 {
		return []finding{warn("resolver", "name one in /etc/resolv.conf, or in [relay.mx] resolver and [names] resolver", "no name server is known: next hops and names cannot be looked up")}
	}
	out := make([]finding, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() { out[i] = askServer(ctx, s) })
	}
	all.Wait()
	return out
}

// orHosts are the servers of a configuration, else those of this host.
func (p *patient) orHosts(servers []string) []string {
	var out []string
	if len(servers) == 0 {
		if conf, err := dns.ClientConfigFromFile(filepath.Join("/", p.root, "etc/resolv.conf")); err == nil {
			servers = conf.Servers
		}
	}
	for _, s := range servers {
		if ap, err := nameserver.ParseServer(s); err == nil {
			out = append(out, ap.String())
		}
	}
	return out
}

// askServer asks for the root's name servers, which every resolver knows.
func askServer(ctx context.Context, server string) finding {
	const check = "resolver"
	host, port, _ := net.SplitHostPort(server)
	mend := fmt.Sprintf("dig @%s -p %s . NS; then mend it, or name another in /etc/resolv.conf or [relay.mx] and [names] resolver", host, port)
	ctx, cancel := context.WithTimeout(ctx, dnsTime)
	defer cancel()
	c := dns.Client{Timeout: dnsTime}
	m, took, err := c.ExchangeContext(ctx, new(dns.Msg).SetQuestion(".", dns.TypeNS), server)
	switch {
	case err != nil:
		return warn(check, mend, "%s does not answer: %v", server, err)
	case m.Rcode != dns.RcodeSuccess:
		return warn(check, mend, "%s answers %s", server, dns.RcodeToString[m.Rcode])
	}
	return ok(check, "%s answers in %s", server, took.Round(time.Millisecond))
}
