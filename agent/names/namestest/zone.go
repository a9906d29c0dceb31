// Package namestest has name servers for tests, on this host alone: a Zone that
// the test writes, and Debian's unbound before it.
package namestest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver/nameservertest"
)

// Zone answers for every name, with authority: what Set has given, NXDOMAIN
// else. It may be changed while it serves.
type Zone struct {
	mu     sync.Mutex
	rrs    map[string][]dns.RR
	broken map[string]bool
	asked  map[string]int
	cut    bool
}

// Serve starts a zone on a free port of 127.0.0.1, UDP and TCP, until the test
// ends, and returns its address.
func Serve(t testing.TB, records string) (*Zone, string) {
	t.Helper()
	z := &Zone{broken: map[string]bool{}, asked: map[string]int{}}
	z.Set(t, records)
	return z, nameservertest.Serve(t, z)
}

// Set replaces the zone's records: lines of a zone file with full names.
func (z *Zone) Set(t testing.TB, records string) {
	t.Helper()
	rrs := map[string][]dns.RR{}
	for line := range strings.Lines(records) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name := dns.CanonicalName(rr.Header().Name)
		rrs[name] = append(rrs[name], rr)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.rrs = rrs
}

// Break makes questions about names fail with SERVFAIL, until Mend.
func (z *Zone) Break(names ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, n := range names {
		z.broken[dns.CanonicalName(n)] = true
	}
}

// Mend ends what Break began.
func (z *Zone) Mend() {
	z.mu.Lock()
	defer z.mu.Unlock()
	clear(z.broken)
}

// Cut makes every answer over UDP too long for it.
func (z *Zone) Cut() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.cut = true
}

// Asked is how often a name was asked for a type ("A").
func (z *Zone) Asked(typ, name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[typ+" "+dns.CanonicalName(name)]
}

// ServeDNS answers a question.
func (z *Zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	name, typ := dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype
	z.asked[dns.TypeToString[typ]+" "+name]++
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	switch {
	case z.broken[name]:
		m.Rcode = dns.RcodeServerFailure
	case z.cut && udp:
		m.Truncated = true
	default:
		z.answer(m, name, typ)
	}
	w.WriteMsg(m) // whoever has gone asks again
}

func (z *Zone) answer(m *dns.Msg, name string, typ uint16) {
	known := false
	for range 20 {
		alias := ""
		for _, rr := range z.rrs[name] {
			known = true
			if c, ok := rr.(*dns.CNAME); ok && typ != dns.TypeCNAME {
				m.Answer, alias = append(m.Answer, rr), dns.CanonicalName(c.Target)
			} else if rr.Header().Rrtype == typ {
				m.Answer = append(m.Answer, rr)
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	if !known && !z.isBetween(name) {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		soa, _ := dns.NewRR("example. 60 IN SOA ns.example. root.example. 1 60 60 60 60")
		m.Ns = []dns.RR{soa}
	}
}

// isBetween says whether a name has no record but names below it (RFC 8020).
func (z *Zone) isBetween(name string) bool {
	for n := range z.rrs {
		if dns.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}
