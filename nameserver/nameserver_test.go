package nameserver_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver"
	"github.com/synward/synward/nameserver/nameservertest"
)

// server answers each question as the name says, with one record that says by
// which transport it came.
func server(t *testing.T) string {
	t.Helper()
	return nameservertest.Serve(t, dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		switch name := q.Question[0].Name; {
		case name == "broken.example.":
			m.Rcode = dns.RcodeServerFailure
		case name == "absent.example.":
			m.Rcode = dns.RcodeNameError
		case name == "large.example." && udp:
			m.Truncated = true
		default:
			rr, _ := dns.NewRR(fmt.Sprintf("%s 60 IN TXT udp=%v", name, udp))
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}))
}

func ask(t *testing.T, name string, servers ...string) (*dns.Msg, error) {
	t.Helper()
	l, err := nameserver.Parse(servers, "resolver")
	if err != nil {
		t.Fatal(err)
	}
	return l.Ask(t.Context(), new(dns.Msg).SetQuestion(name, dns.TypeTXT))
}

func TestAsk(t *testing.T) {
	at := server(t)
	for name, want := range map[string]string{"small.example.": "udp=true", "large.example.": "udp=false"} {
		m, err := ask(t, name, at)
		if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.TXT).Txt[0] != want {
			t.Errorf("%s: %v, %v, want %s", name, m, err, want)
		}
	}
	if m, err := ask(t, "absent.example.", at); err != nil || m.Rcode != dns.RcodeNameError {
		t.Errorf("no such name: %v, %v", m, err)
	}
	if m, err := ask(t, "broken.example.", at); err == nil || err.Error() != at+" says SERVFAIL" {
		t.Errorf("SERVFAIL: %v, %v", m, err)
	}
}

// One that does not answer is passed over, and named where none does.
func TestTheNextIsAsked(t *testing.T) {
	pc, ln := nameservertest.Listen(t)
	dead := pc.LocalAddr().String()
	pc.Close() // refuses at once
	ln.Close()
	if m, err := ask(t, "small.example.", dead, server(t)); err != nil || len(m.Answer) != 1 {
		t.Errorf("the second: %v, %v", m, err)
	}
	if m, err := ask(t, "small.example.", dead); err == nil || !strings.HasPrefix(err.Error(), dead+": ") || strings.Contains(err.Error(), "->") {
		t.Errorf("no other: %v, %v", m, err)
	}
	l, _ := nameserver.Parse([]string{dead}, "resolver")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Ask(ctx, new(dns.Msg).SetQuestion("x.", dns.TypeA)); err != context.Canceled {
		t.Errorf("nobody waits any more: %v", err)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]string{"127.0.0.1": "127.0.0.1:53", "[::1]:5353": "[::1]:5353", "::1": "[::1]:53", "ns.example": "", "127.0.0.1:0": "", "192.0.2.1:port": "", "": ""} {
		l, err := nameserver.Parse([]string{s}, "resolver")
		if (err == nil) != (want != "") || err == nil && l[0].String() != want {
			t.Errorf("%q: %v, %v, want %q", s, l, err, want)
		}
	}
}

func TestAbsence(t *testing.T) {
	soa, err := dns.NewRR("example. 60 IN SOA ns.example. root.example. 1 1 1 1 30")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ns   []dns.RR
		want time.Duration
	}{{nil, time.Hour}, {[]dns.RR{soa}, 30 * time.Second}} {
		if got := nameserver.Absence(&dns.Msg{Ns: c.ns}, time.Hour); got != c.want {
			t.Errorf("%v: %v, want %v", c.ns, got, c.want)
		}
	}
}
