package names_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/names"
	"github.com/synward/synward/agent/names/namestest"
)

// spfZone has a record for each case, and what they speak of.
const spfZone = `
mail.example.      300 IN A    192.0.2.25
mail.example.      300 IN AAAA 2001:db8::25
backup.example.    60  IN A    198.51.100.25
mx.example.        300 IN MX   10 mail.example.
mx.example.        300 IN MX   20 backup.example.
mx.example.        300 IN MX   30 .

plain.example.     300 IN TXT  "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.7 ip6:2001:db8:1::/48 -all"
plain.example.     300 IN TXT  "some-verification=abc"
split.example.     300 IN TXT  "v=spf1 ip4:192.0." "2.0/24 -all"
upper.example.     300 IN TXT  "V=SPF1 IP4:192.0.2.1 A:Mail.Example -ALL"
hostbits.example.  300 IN TXT  "v=spf1 ip4:192.0.2.77/24 -all"
a.example.         300 IN TXT  "v=spf1 a:mail.example/24//64 -all"
a6.example.        300 IN TXT  "v=spf1 a:mail.example//48 -all"
own.example.       300 IN TXT  "v=spf1 a -all"
own.example.       300 IN A    203.0.113.9
mxs.example.       300 IN TXT  "v=spf1 mx:mx.example -all"
include.example.   300 IN TXT  "v=spf1 include:plain.example include:own.example ~all"
redirect.example.  300 IN TXT  "v=spf1 ip4:203.0.113.1 redirect=plain.example"
ignored.example.   300 IN TXT  "v=spf1 ip4:203.0.113.1 -all redirect=plain.example"
modifier.example.  300 IN TXT  "v=spf1 ip4:203.0.113.1 exp=why.%{d} x-new=1/2:3 -all"
domain.example.    300 IN TXT  "v=spf1 include:%{d}._spf.domain.example -all"
domain.example._spf.domain.example. 300 IN TXT "v=spf1 ip4:203.0.113.5 -all"

hole.example.      300 IN TXT  "v=spf1 -ip4:192.0.2.128/26 ip4:192.0.2.0/24 -all"
late.example.      300 IN TXT  "v=spf1 ip4:192.0.2.0/24 -ip4:192.0.2.128/26 -all"
inner.example.     300 IN TXT  "v=spf1 -ip4:192.0.2.0/25 ip4:192.0.2.0/24 -all"
outer.example.     300 IN TXT  "v=spf1 include:inner.example ip4:192.0.2.64/26 -all"
soft.example.      300 IN TXT  "v=spf1 ?ip4:192.0.2.0/25 ~ip4:192.0.2.128/26 ip4:192.0.2.0/24 -all"
notme.example.     300 IN TXT  "v=spf1 -include:plain.example ip4:192.0.0.0/16 -all"

odd.example.       300 IN TXT  "v=spf1 ip4:192.0.2.1 exists:%{i}._spf.example ptr a:%{l}.example ptr:odd.example include:localhost ip6:::ffff:192.0.2.2 -all"
every.example.     300 IN TXT  "v=spf1 ip4:192.0.2.1 +all"
onlyodd.example.   300 IN TXT  "v=spf1 exists:%{i}._spf.example -all"
onlyall.example.   300 IN TXT  "v=spf1 all"
deny.example.      300 IN TXT  "v=spf1 -all"
nospf.example.     300 IN TXT  "v=spf10 ip4:192.0.2.1"

two.example.       300 IN TXT  "v=spf1 -all"
two.example.       300 IN TXT  "v=spf1 ip4:192.0.2.1 -all"
syntax.example.    300 IN TXT  "v=spf1 ip4:192.0.2.1 frob:x -all"
badip.example.     300 IN TXT  "v=spf1 ip4:192.0.2.1/33 -all"
badlen.example.    300 IN TXT  "v=spf1 a:mail.example/024 -all"
loop.example.      300 IN TXT  "v=spf1 include:loop2.example -all"
loop2.example.     300 IN TXT  "v=spf1 include:loop.example -all"
dangling.example.  300 IN TXT  "v=spf1 include:nowhere.example -all"
voids.example.     300 IN TXT  "v=spf1 a:n1.example a:n2.example a:n3.example ip4:192.0.2.1 -all"
twovoids.example.  300 IN TXT  "v=spf1 a:n1.example mx:n2.example ip4:192.0.2.1 -all"
ten.example.       300 IN TXT  "v=spf1 a:mail.example a:mail.example a:mail.example a:mail.example a:mail.example a:mail.example a:mail.example a:mail.example ptr exists:x.example -all"
eleven.example.    300 IN TXT  "v=spf1 a:mail.example include:ten.example -all"
broken.example.    300 IN TXT  "v=spf1 ip4:192.0.2.1 a:servfail.example -all"
`

const plainSources = "192.0.2.0/24 198.51.100.7/32 2001:db8:1::/48"

func TestSPF(t *testing.T) {
	z, zone := namestest.Serve(t, spfZone)
	z.Break("servfail.example")
	for server, addr := range map[string]string{"zone": zone, "unbound": namestest.Unbound(t, zone)} {
		r := resolver(t, addr)
		for domain, want := range map[string]string{
			"plain":    plainSources,
			"split":    "192.0.2.0/24",
			"upper":    "192.0.2.1/32 192.0.2.25/32 2001:db8::25/128",
			"hostbits": "192.0.2.0/24",
			"a":        "192.0.2.0/24 2001:db8::/64",
			"a6":       "192.0.2.25/32 2001:db8::/48",
			"own":      "203.0.113.9/32",
			"mxs":      "192.0.2.25/32 198.51.100.25/32 2001:db8::25/128",
			"include":  "192.0.2.0/24 198.51.100.7/32 203.0.113.9/32 2001:db8:1::/48",
			"redirect": "192.0.2.0/24 198.51.100.7/32 203.0.113.1/32 2001:db8:1::/48",
			"ignored":  "203.0.113.1/32",
			"modifier": "203.0.113.1/32",
			"domain":   "203.0.113.5/32",
			"hole":     "192.0.2.0/25 192.0.2.192/26",
			"late":     "192.0.2.0/24",
			"outer":    "192.0.2.64/26 192.0.2.128/25",
			"soft":     "192.0.2.192/26",
			"twovoids": "192.0.2.1/32",
			"ten":      "192.0.2.25/32 2001:db8::25/128",
		} {
			res, err := r.Resolve(t.Context(), "spf:"+domain+".example")
			if err != nil || words(res.Prefixes) != want {
				t.Errorf("%s: %s: %s, %v, want %s", server, domain, words(res.Prefixes), err, want)
			}
		}
		for domain, want := range map[string]string{
			"onlyodd": "exists asks about each source", "onlyall": "everybody", "deny": "nothing behind", "nospf": "no SPF record", "missing": "no SPF record",
		} {
			if res, err := r.Resolve(t.Context(), "spf:"+domain+".example"); !errors.Is(err, names.ErrEmpty) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: %v, %v, want ErrEmpty with %q", server, domain, res, err, want)
			}
		}
		for domain, want := range map[string]string{
			"two": "there are 2 of them", "syntax": `"frob:x"`, "badip": "192.0.2.1/33", "badlen": "/024", "loop": "includes itself",
			"dangling": "nowhere.example has no SPF record", "voids": "more than 2 lookups bring nothing", "eleven": "more than 10 lookups",
		} {
			var bad *names.PermError
			if res, err := r.Resolve(t.Context(), "spf:"+domain+".example"); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: %v, %v, want a PermError with %q", server, domain, res, err, want)
			}
		}
		if res, err := r.Resolve(t.Context(), "spf:broken.example"); !errors.Is(err, names.ErrTemporary) {
			t.Errorf("%s: a part without an answer: %v, %v, want ErrTemporary", server, res, err)
		}
	}
}

func TestWhatSPFCannotExpandIsNamed(t *testing.T) {
	_, addr := namestest.Serve(t, spfZone)
	r := resolver(t, addr)
	res, err := r.Resolve(t.Context(), "spf:odd.example")
	if err != nil || words(res.Prefixes) != "192.0.2.1/32" {
		t.Fatalf("%s, %v", words(res.Prefixes), err)
	}
	notes := strings.Join(res.Notes, "\n")
	for _, term := range []string{"exists:%{i}._spf.example", "ptr of odd.example", "ptr:odd.example", "a:%{l}.example", "include:localhost", "ip6:::ffff:192.0.2.2"} {
		if !strings.Contains(notes, term) {
			t.Errorf("%s is not named in:\n%s", term, notes)
		}
	}
	if res, err = r.Resolve(t.Context(), "spf:every.example"); err != nil || words(res.Prefixes) != "192.0.2.1/32" || len(res.Notes) != 1 {
		t.Errorf("+all: %s, %v, %v", words(res.Prefixes), res.Notes, err)
	}
}

func TestSPFHoldsForTheShortestTTL(t *testing.T) {
	_, addr := namestest.Serve(t, spfZone)
	res, err := resolver(t, addr).Resolve(t.Context(), "spf:mxs.example")
	if err != nil || res.TTL != time.Minute {
		t.Errorf("%v, %v, want the backup's minute", res.TTL, err)
	}
}

func TestTooManyExchangers(t *testing.T) {
	zone := "big.example. 300 IN TXT \"v=spf1 mx -all\"\n"
	for i := range 11 {
		zone += fmt.Sprintf("big.example. 300 IN MX 10 m%d.example.\nm%d.example. 300 IN A 192.0.2.%d\n", i, i, i+1)
	}
	_, addr := namestest.Serve(t, zone)
	var bad *names.PermError
	if res, err := resolver(t, addr).Resolve(t.Context(), "spf:big.example"); !errors.As(err, &bad) {
		t.Errorf("%v, %v, want a PermError", res, err)
	}
}
