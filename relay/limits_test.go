package relay

import (
	"net/netip"
	"strings"
	"testing"
)

// asAlice is a session of alice's with what she may do changed by f.
func asAlice(t *testing.T, f func(*Settings)) *dialogue {
	t.Helper()
	set := testSettings()
	f(&set)
	d := on(t, start(t, set), "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH PLAIN {\x00alice\x00secret}`, "s: 235 *")
	return d
}

func TestUsersDomains(t *testing.T) {
	d := asAlice(t, func(s *Settings) {
		s.Accounts[0].Domains = []string{"near.example", "xn--bcher-kva.example"}
		s.Accounts[0].Denied = []string{"bad.near.example"}
	})
	d.steps("c: MAIL FROM:<a@example.org> SMTPUTF8", "s: 250 *",
		"c: RCPT TO:<b@NEAR.example>", "s: 250 *", "c: RCPT TO:<b@bücher.example>", "s: 250 *",
		"c: RCPT TO:<b@bad.near.example>", "s: 550 5.7.1 recipient is not allowed *",
		"c: RCPT TO:<b@far.example>", "s: 550 5.7.1 *", "c: RCPT TO:<b@near.example.>", "s: 501 *")
	if st := d.b.Status(); st.Unauthorized != 2 {
		t.Errorf("%d unauthorised attempts are counted, want 2", st.Unauthorized)
	}
	// What changes while the session lasts counts at DATA.
	set := testSettings()
	set.Accounts[0].Domains = []string{"far.example"}
	if err := d.b.Apply(set); err != nil {
		t.Fatal(err)
	}
	d.steps("c: DATA", "s: 354 *", "c: text", "c: .", "s: 550 5.7.1 *", "queued 0")
}

func TestUsersBounds(t *testing.T) {
	d := asAlice(t, func(s *Settings) { s.Accounts[0].MaxSize, s.Accounts[0].MaxRecipients = 2000, 2 })
	d.steps("c: MAIL FROM:<a@example.org> SIZE=2001", "s: 552 5.3.4 *", "c: MAIL FROM:<a@example.org> SIZE=2000", "s: 250 *",
		"c: RCPT TO:<b@x.example>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 452 4.5.3 *",
		"c: DATA", "s: 354 *")
	d.send(strings.Repeat("0123456789abcdef0123456789abcdef01234567890123\r\n", 50) + ".\r\n")
	d.steps("s: 552 5.3.4 *", "queued 0",
		"c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: small", "c: .", "s: 250 *", "queued 1")
}

func TestRelayDomains(t *testing.T) {
	set := testSettings()
	set.RelayDomains = []string{"ours.example", ".all.example"}
	b := start(t, set)
	d := on(t, b, "25")
	d.steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 250 *",
		"c: RCPT TO:<b@Ours.Example>", "s: 250 *", "c: RCPT TO:<b@x.all.example>", "s: 250 *",
		"c: RCPT TO:<b@sub.ours.example>", "s: 550 5.7.1 relaying denied",
		`c: RCPT TO:<"b@ours.example"@evil.example>`, "s: 550 5.7.1 *", "c: RCPT TO:<@ours.example:b@evil.example>", "s: 501 *",
		"c: DATA", "s: 354 *", "c: text", "c: .", "s: 250 *", "queued 1")
	on(t, b, "587").steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 530 5.7.0 *")
	set.RelayDomains = []string{"two words"}
	if err := b.Apply(set); err == nil || !strings.Contains(err.Error(), "relay_domains[0]") {
		t.Errorf("a bad relay domain: %v", err)
	}
}

func TestDenied(t *testing.T) {
	d := asAlice(t, func(s *Settings) { s.Accounts[0].Senders = []string{"alice@example.org"} })
	for range 3 {
		d.steps("c: MAIL FROM:<a@example.org>", "s: 550 *")
	}
	on(t, d.b, "25").steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 550 *")
	all := d.b.Denied(false)
	if all.Total != 4 || len(all.Denied) != 2 {
		t.Fatalf("denied are %+v", all)
	}
	if v := all.Denied[0]; v.User != "" || v.Count != 1 || v.Rcpt != "b@x.example" || v.Port != 25 || v.Source.String() != "127.0.0.1/32" || !strings.HasPrefix(v.Reply, "550 5.7.1 relaying") {
		t.Errorf("the stranger is %+v", v)
	}
	if v := d.b.Denied(true).Denied[0]; v.User != "alice" || v.Count != 3 || v.From != "a@example.org" || v.Rcpt != "" {
		t.Errorf("alice is %+v", v)
	}
}

func TestDeniedIsBounded(t *testing.T) {
	d := newDenials(100)
	for i := range 1000 {
		for range 2 {
			g := &guard{source: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
			d.add(&session{g: g}, Event{})
		}
		d.add(&session{g: &guard{source: netip.MustParseAddr("192.0.2.1")}, user: "busy"}, Event{})
	}
	if len(d.byKey) != 100 || d.order.Len() != 100 || d.total != 3000 || d.forgotten != 2*901 {
		t.Errorf("%d are kept, %d in order, %d in all, %d forgotten", len(d.byKey), d.order.Len(), d.total, d.forgotten)
	}
	if v := d.order.Front().Value.(*Denied); v.User != "busy" || v.Count != 1000 {
		t.Errorf("the busy one is %+v", v)
	}
}

// TestPeersPorts: the relay right of a source counts on its entry's ports.
func TestPeersPorts(t *testing.T) {
	set := testSettings()
	set.Peers = []Peer{
		{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Name: "hall", Except: []uint16{587}},
		{Prefix: netip.MustParsePrefix("127.0.0.0/24"), Name: "printer", Ports: []uint16{25}, Senders: []string{"printer@example.org"}},
	}
	b := start(t, set)
	on(t, b, "25").steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 550 *", "c: MAIL FROM:<printer@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *")
	on(t, b, "465").steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *")
	on(t, b, "587").steps("s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<printer@example.org>", "s: 530 *")
}
