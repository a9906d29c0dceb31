package relay

import (
	"strings"
	"testing"

	"github.com/synward/synward/relay/account"
)

func TestDecide(t *testing.T) {
	free := &account.Account{Name: "alice"}
	bound := &account.Account{Name: "bob", Senders: []string{"bob@example.org"}}
	near := &account.Account{Name: "carol", Domains: []string{"ours.example", ".sub.example"}, Denied: []string{"no.sub.example"}}
	off := &account.Account{Name: "gone", Disabled: true}
	printer := &Peer{Name: "printer", Senders: []string{"office.example"}}
	ours := func(d string) bool { return strings.EqualFold(d, "ours.example") }
	from := func(l, d string) path { return path{l, d} }
	to := func(l, d string) *path { return &path{l, d} }
	for name, c := range map[string]struct {
		a    ask
		want answer
	}{
		"user":                             {ask{submission: true, tls: true, account: free, from: from("a", "b"), rcpt: to("c", "d")}, ansNone},
		"user at MAIL":                     {ask{submission: true, tls: true, account: free, from: from("a", "b")}, ansNone},
		"user on 25":                       {ask{tls: true, account: free, from: from("a", "b"), rcpt: to("c", "d")}, ansNone},
		"user without TLS":                 {ask{submission: true, account: free, from: from("a", "b")}, ansTLSFirst},
		"user without TLS on 25":           {ask{account: free, from: from("a", "b"), rcpt: to("c", "d")}, ansRelayDenied},
		"to an allowed domain":             {ask{submission: true, tls: true, account: near, from: from("a", "b"), rcpt: to("c", "Ours.example")}, ansNone},
		"below an allowed domain":          {ask{submission: true, tls: true, account: near, from: from("a", "b"), rcpt: to("c", "x.SUB.example")}, ansNone},
		"to no allowed domain":             {ask{submission: true, tls: true, account: near, from: from("a", "b"), rcpt: to("c", "sub.example")}, ansRcptNotYours},
		"to a denied domain":               {ask{submission: true, tls: true, account: near, from: from("a", "b"), rcpt: to("c", "no.sub.example")}, ansRcptNotYours},
		"on 25 to no allowed domain":       {ask{tls: true, account: near, from: from("a", "b"), rcpt: to("c", "d"), domains: ours}, ansRcptNotYours},
		"disabled user":                    {ask{submission: true, tls: true, account: off, from: from("a", "b")}, ansAuthFirst},
		"his sender":                       {ask{submission: true, tls: true, account: bound, from: from("bob", "Example.ORG"), rcpt: to("c", "d")}, ansNone},
		"another's sender":                 {ask{submission: true, tls: true, account: bound, from: from("alice", "example.org")}, ansSenderNotYours},
		"another's sender at RCPT":         {ask{submission: true, tls: true, account: bound, from: from("alice", "example.org"), rcpt: to("c", "ours.example"), domains: ours}, ansSenderNotYours},
		"null sender":                      {ask{submission: true, tls: true, account: bound, rcpt: to("c", "d")}, ansNone},
		"nobody on 587":                    {ask{submission: true, tls: true, from: from("a", "b")}, ansAuthFirst},
		"nobody on 587 to a relay domain":  {ask{submission: true, tls: true, from: from("a", "b"), rcpt: to("c", "ours.example"), domains: ours}, ansAuthFirst},
		"nobody in plain text":             {ask{submission: true, from: from("a", "b")}, ansTLSFirst},
		"nobody on 25 at MAIL":             {ask{from: from("a", "b")}, ansNone},
		"nobody on 25":                     {ask{from: from("a", "b"), rcpt: to("c", "d"), domains: ours}, ansRelayDenied},
		"nobody on 25, no domains":         {ask{from: from("a", "b"), rcpt: to("c", "ours.example")}, ansRelayDenied},
		"nobody on 25 to a relay domain":   {ask{from: from("a", "b"), rcpt: to("c", "OURS.example"), domains: ours}, ansNone},
		"nobody on 25 to a quoted address": {ask{from: from("a", "b"), rcpt: to("x@ours.example", "evil.example"), domains: ours}, ansRelayDenied},
		"peer":                             {ask{submission: true, peer: printer, from: from("p", "office.example"), rcpt: to("c", "d")}, ansNone},
		"peer with another's sender":       {ask{peer: printer, from: from("p", "example.org")}, ansSenderNotYours},
		"no SMTPUTF8 for the sender":       {ask{submission: true, tls: true, account: free, from: from("ä", "b")}, ansNeedUTF8},
		"no SMTPUTF8 for the recipient":    {ask{submission: true, tls: true, account: free, from: from("a", "b"), rcpt: to("c", "ä")}, ansNeedUTF8},
		"SMTPUTF8":                         {ask{submission: true, tls: true, account: free, utf8: true, from: from("ä", "b"), rcpt: to("c", "ä")}, ansNone},
	} {
		if got := decide(c.a); got != c.want {
			t.Errorf("%s: %v, want %v", name, got.reply(), c.want.reply())
		}
	}
}

// TestTable: every reply has a text, and the enhanced code of its class.
func TestTable(t *testing.T) {
	for a := ansNone + 1; a < answers; a++ {
		r := table[a]
		if r.text == "" || r.code < 200 || r.code > 599 {
			t.Errorf("answer %d is %+v", a, r)
		}
		if r.enh[0] != 0 && r.enh[0] != r.code/100 && a != ansAuthTooLong {
			t.Errorf("%s: the classes differ", r)
		}
		if r.enh[0] == 0 && r.code >= 400 {
			t.Errorf("%s has no enhanced code", r)
		}
	}
	for v, codes := range said {
		for code, a := range codes {
			if (code >= 400) != (table[a].code >= 400) {
				t.Errorf("%s: go-smtp's %d becomes %s", v, code, table[a])
			}
		}
	}
}
