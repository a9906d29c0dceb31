package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Errors that callers may test for with errors.Is.
var (
	ErrTemporary = errors.New("no answer")      // time-out, SERVFAIL and the like: ask again
	ErrEmpty     = errors.New("nothing behind") // the name exists not, or has no address
)

// Bounds of asking.
const (
	queryTime = 3 * time.Second // for one answer of one server
	tries     = 2               // of each server
	maxChain  = 16              // aliases in an answer
	maxTTL    = 24 * time.Hour
)

// Resolver asks recursive name servers. It remembers nothing, and may be used
// by several goroutines.
type Resolver struct {
	servers []string // host:port
}

// NewResolver returns a resolver that asks servers in turn, each an address
// with or without a port; without any, those of /etc/resolv.conf.
func NewResolver(servers []string) (*Resolver, error) {
	if len(servers) == 0 {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return nil, fmt.Errorf("read name servers: %w", err)
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	r := &Resolver{}
	for _, s := range servers {
		ap, err := ParseServer(s)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, ap.String())
	}
	if len(r.servers) == 0 {
		return nil, errors.New("no name server is known: set names.resolver")
	}
	return r, nil
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

// answer is what a name server says to one question.
type answer struct {
	records []dns.RR // of the type asked for, at the end of the aliases
	ttl     time.Duration
}

// ask puts a question to the servers in turn. No such name and no such record
// are answers without records.
func (r *Resolver) ask(ctx context.Context, name string, typ uint16) (answer, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.CanonicalName(name), typ)
	q.SetEdns0(1232, false)
	var cause error
	for range tries {
		for _, s := range r.servers {
			if err := ctx.Err(); err != nil {
				return answer{}, err
			}
			m, err := exchange(ctx, q, s)
			switch {
			case err != nil:
				cause = fmt.Errorf("%s: %w", s, plain(err))
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return read(m, q.Question[0].Name, typ)
			default:
				cause = fmt.Errorf("%s says %s", s, dns.RcodeToString[m.Rcode])
			}
		}
	}
	return answer{}, fmt.Errorf("look up %s of %s: %w: %w", dns.TypeToString[typ], name, ErrTemporary, cause)
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

// read follows the aliases through an answer and takes the records at their
// end. What else a server adds is nobody's business.
func read(m *dns.Msg, name string, typ uint16) (answer, error) {
	a := answer{ttl: maxTTL}
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) || h.Class != dns.ClassINET {
				continue
			}
			alias, isAlias := rr.(*dns.CNAME)
			if h.Rrtype != typ && !isAlias {
				continue
			}
			a.ttl = min(a.ttl, time.Duration(h.Ttl)*time.Second)
			if h.Rrtype == typ {
				a.records = append(a.records, rr)
			} else {
				next = dns.CanonicalName(alias.Target)
			}
		}
		if len(a.records) == 0 && next == "" {
			a.ttl = min(a.ttl, absence(m))
			return a, nil
		}
		if len(a.records) > 0 {
			return a, nil
		}
		name = next
	}
	return answer{}, fmt.Errorf("look up %s of %s: more than %d aliases", dns.TypeToString[typ], name, maxChain)
}

// absence is for how long "no such record" holds (RFC 2308 5).
func absence(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second
		}
	}
	return time.Hour
}

// addresses asks for A and AAAA. Either of them missing is no error; either of
// them unknown is.
func (r *Resolver) addresses(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	type reply struct {
		answer
		err error
	}
	six := make(chan reply, 1)
	go func() {
		a, err := r.ask(ctx, name, dns.TypeAAAA)
		six <- reply{a, err}
	}()
	a4, err4 := r.ask(ctx, name, dns.TypeA)
	a6 := <-six
	if err4 != nil {
		return nil, 0, err4
	}
	if a6.err != nil {
		return nil, 0, a6.err
	}
	return append(addrsOf(a4.records), addrsOf(a6.records)...), min(a4.ttl, a6.ttl), nil
}

// addrsOf are the addresses in records; an IPv4 address in an AAAA record is
// none that a packet comes from.
func addrsOf(records []dns.RR) (out []netip.Addr) {
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				out = append(out, a)
			}
		case *dns.AAAA:
			if a, ok := netip.AddrFromSlice(rr.AAAA); ok && a.Is6() && !a.Is4In6() {
				out = append(out, a)
			}
		}
	}
	return out
}
