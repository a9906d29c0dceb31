package mx

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver/nameservertest"
)

// zone is what the test's name server knows.
type zone struct {
	mu     sync.Mutex
	rrs    map[string][]dns.RR // by "TYPE name."
	names  map[string]bool     // that exist
	broken map[string]bool     // names that get SERVFAIL
	plain  map[string]bool     // names without DNSSEC
	asked  map[string]int
	big    bool // UDP answers are cut
}

// serve starts a name server on this host and returns its address.
func (z *zone) serve(t *testing.T) string {
	t.Helper()
	return nameservertest.Serve(t, z)
}

func newZone(t *testing.T, records string) *zone {
	t.Helper()
	z := &zone{rrs: map[string][]dns.RR{}, names: map[string]bool{}, broken: map[string]bool{}, plain: map[string]bool{}, asked: map[string]int{}}
	for line := range strings.Lines(records) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		h := rr.Header()
		h.Ttl = 300
		key := dns.TypeToString[h.Rrtype] + " " + h.Name
		z.rrs[key] = append(z.rrs[key], rr)
		z.names[h.Name] = true
	}
	return z
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	name, typ := q.Question[0].Name, dns.TypeToString[q.Question[0].Qtype]
	z.asked[typ+" "+name]++
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	m.AuthenticatedData = q.AuthenticatedData
	for _, alias := range z.rrs["CNAME "+name] {
		m.Answer = append(m.Answer, alias)
		name = alias.(*dns.CNAME).Target
	}
	switch {
	case z.broken[name]:
		m.Rcode = dns.RcodeServerFailure
	case z.big && udp:
		m.Truncated = true
	case !z.names[name]:
		m.Rcode = dns.RcodeNameError
	default:
		m.Answer = append(m.Answer, z.rrs[typ+" "+name]...)
		m.AuthenticatedData = m.AuthenticatedData && !z.plain[name]
	}
	w.WriteMsg(m) // the client tries again
}

func (z *zone) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}
