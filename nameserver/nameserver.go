// Package nameserver puts questions to recursive name servers: which ones, how
// often, and by TCP where an answer is too large for UDP. It remembers nothing
// and knows of no record what it means; both agent and relay stand on it.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Bounds of asking.
const (
	queryTime = 3 * time.Second // for one answer of one server
	tries     = 2               // of each server
)

// List are name servers, in the order in which they are asked. It may be used
// by several goroutines.
type List []netip.AddrPort

// Parse reads a list of addresses, each with or without a port; an empty one is
// that of /etc/resolv.conf. key is what to set where there is none at all.
func Parse(list []string, key string) (List, error) {
	if len(list) == 0 {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return nil, fmt.Errorf("read name servers: %w", err)
		}
		for _, s := range conf.Servers {
			list = append(list, net.JoinHostPort(s, conf.Port))
		}
	}
	var out List
	for _, s := range list {
		server, err := ParseServer(s)
		if err != nil {
			return nil, err
		}
		out = append(out, server)
	}
	if len(out) == 0 {
		return nil, errors.New("no name server is known: set " + key)
	}
	return out, nil
}

// ParseServer reads a name server's address, with port 53 where it has none.
func ParseServer(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("name server %q: write an address such as 127.0.0.1, or with its port 127.0.0.1:5353", s)
	}
	return netip.AddrPortFrom(a, 53), nil
}

// Ask puts a question to the servers in turn until one answers. That there is no
// such name, or no such record, is an answer. The error is the context's, or
// says why the last of them gave none.
func (l List) Ask(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	var cause error
	for range tries {
		for _, server := range l {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			m, err := exchange(ctx, q, server.String())
			switch {
			case err != nil:
				cause = fmt.Errorf("%s: %w", server, plain(err))
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return m, nil
			default:
				cause = fmt.Errorf("%s says %s", server, dns.RcodeToString[m.Rcode])
			}
		}
	}
	return nil, cause
}

// exchange asks one server, by TCP where the answer is too large for UDP.
func exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	c := dns.Client{Timeout: queryTime}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil || !m.Truncated {
		return m, err
	}
	c.Net = "tcp"
	m, _, err = c.ExchangeContext(ctx, q, server)
	return m, err
}

// plain is a network's error without the addresses of both ends, one of which
// is another each time.
func plain(err error) error {
	var op *net.OpError
	switch late := net.Error(nil); {
	case errors.As(err, &late) && late.Timeout():
		return errors.New("time-out")
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

// Absence is for how long an answer without records holds (RFC 2308 5), or
// otherwise where it does not say.
func Absence(m *dns.Msg, otherwise time.Duration) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second
		}
	}
	return otherwise
}
