package names_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/agent/names"
	"github.com/synward/synward/agent/names/namestest"
)

func resolver(t *testing.T, server string) *names.Resolver {
	t.Helper()
	r, err := names.NewResolver([]string{server})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func words(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

const hosts = `
office.example.  300 IN A     192.0.2.10
office.example.  600 IN AAAA  2001:db8::10
four.example.    300 IN A     192.0.2.20
four.example.    300 IN A     192.0.2.4
alias.example.   120 IN CNAME office.example.
text.example.    300 IN TXT   "no address here"
none.example.    300 IN A     0.0.0.0
`

// Both what the test serves itself and a real resolver before it.
func TestHosts(t *testing.T) {
	_, zone := namestest.Serve(t, hosts)
	for server, addr := range map[string]string{"zone": zone, "unbound": namestest.Unbound(t, zone)} {
		r := resolver(t, addr)
		for name, want := range map[string]string{
			"office.example": "192.0.2.10/32 2001:db8::10/128",
			"four.example":   "192.0.2.4/32 192.0.2.20/32",
			"alias.example":  "192.0.2.10/32 2001:db8::10/128",
		} {
			res, err := r.Resolve(t.Context(), name)
			if err != nil || words(res.Prefixes) != want {
				t.Errorf("%s: %s: %s, %v, want %s", server, name, words(res.Prefixes), err, want)
			}
			if res.TTL <= 0 || res.TTL > 300*time.Second {
				t.Errorf("%s: %s: holds for %v", server, name, res.TTL)
			}
		}
		for _, name := range []string{"text.example", "missing.example", "none.example"} {
			if res, err := r.Resolve(t.Context(), name); !errors.Is(err, names.ErrEmpty) {
				t.Errorf("%s: %s: %v, %v, want ErrEmpty", server, name, res, err)
			}
		}
	}
}

func TestTheShortestTTLCounts(t *testing.T) {
	_, addr := namestest.Serve(t, hosts)
	res, err := resolver(t, addr).Resolve(t.Context(), "alias.example")
	if err != nil || res.TTL != 2*time.Minute {
		t.Errorf("%v, %v, want the alias's 2m", res.TTL, err)
	}
}

// Where one of the two families is unknown the answer is none, not half.
func TestHalfAnAnswerIsNone(t *testing.T) {
	z, zone := namestest.Serve(t, hosts)
	unbound := namestest.Unbound(t, zone)
	z.Break("office.example")
	for _, addr := range []string{zone, unbound} {
		if res, err := resolver(t, addr).Resolve(t.Context(), "office.example"); !errors.Is(err, names.ErrTemporary) {
			t.Errorf("%v, %v, want ErrTemporary", res, err)
		}
	}
	z.Mend()
	if _, err := resolver(t, zone).Resolve(t.Context(), "office.example"); err != nil {
		t.Errorf("mended: %v", err)
	}
}

func TestLongAnswersComeByTCP(t *testing.T) {
	var records strings.Builder
	for i := range 400 {
		fmt.Fprintf(&records, "many.example. 300 IN A 198.51.%d.%d\n", 100+i/250, i%250)
	}
	z, zone := namestest.Serve(t, records.String())
	z.Cut()
	res, err := resolver(t, namestest.Unbound(t, zone)).Resolve(t.Context(), "many.example")
	if err != nil || len(res.Prefixes) != 400 {
		t.Errorf("%d prefixes, %v, want 400", len(res.Prefixes), err)
	}
}

func TestSilenceEndsWithTheContext(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions, answers none
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := resolver(t, pc.LocalAddr().String()).Resolve(ctx, "office.example"); err == nil {
		t.Error("an answer from nobody")
	}
}

func TestACircleOfAliasesEnds(t *testing.T) {
	_, addr := namestest.Serve(t, `
office.example. 300 IN CNAME loop.example.
loop.example.   300 IN CNAME office.example.
`)
	if res, err := resolver(t, addr).Resolve(t.Context(), "office.example"); err == nil {
		t.Errorf("a circle of aliases gave %v", res)
	}
}

// A server that adds records of other names does not get them in.
func TestOnlyTheQuestionIsAnswered(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, line := range []string{"other.example. 300 IN A 203.0.113.1", "office.example. 300 IN A 192.0.2.1"} {
			if rr, _ := dns.NewRR(line); rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		w.WriteMsg(m)
	})}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go s.ActivateAndServe()
	<-started
	t.Cleanup(func() { s.Shutdown() })
	res, err := resolver(t, pc.LocalAddr().String()).Resolve(t.Context(), "office.example")
	if err != nil || words(res.Prefixes) != "192.0.2.1/32" {
		t.Errorf("%s, %v", words(res.Prefixes), err)
	}
}

func TestBadServers(t *testing.T) {
	if _, err := names.NewResolver([]string{"ns.example"}); err == nil {
		t.Error("took a name for a server")
	}
}
