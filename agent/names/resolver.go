package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver"
)

// Errors that callers may test for with errors.Is.
var (
	ErrTemporary = errors.New("no answer")      // time-out, SERVFAIL and the like: ask again
	ErrEmpty     = errors.New("nothing behind") // the name exists not, or has no address
)

// Bounds of asking.
const (
	maxChain = 16 // aliases in an answer
	maxTTL   = 24 * time.Hour
)

// Resolver asks recursive name servers. It remembers nothing, and may be used
// by several goroutines.
type Resolver struct{ servers nameserver.List }

// NewResolver returns a resolver that asks servers in turn, each an address
// with or without a port; without any, those of /etc/resolv.conf.
func NewResolver(servers []string) (*Resolver, error) {
	l, err := nameserver.Parse(servers, "names.resolver")
	if err != nil {
		return nil, err
	}
	return &Resolver{l}, nil
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
	m, err := r.servers.Ask(ctx, q)
	switch {
	case ctx.Err() != nil:
		return answer{}, ctx.Err()
	case err != nil:
		return answer{}, fmt.Errorf("look up %s of %s: %w: %w", dns.TypeToString[typ], name, ErrTemporary, err)
	}
	return read(m, q.Question[0].Name, typ)
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
			a.ttl = min(a.ttl, nameserver.Absence(m, time.Hour))
			return a, nil
		}
		if len(a.records) > 0 {
			return a, nil
		}
		name = next
	}
	return answer{}, fmt.Errorf("look up %s of %s: more than %d aliases", dns.TypeToString[typ], name, maxChain)
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
