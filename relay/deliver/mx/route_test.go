package mx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/deliver"
)

const records = `
two.test.        MX 10 mx1.two.test.
two.test.        MX 20 mx2.two.test.
mx1.two.test.    A 192.0.2.1
mx1.two.test.    AAAA 2001:db8::1
mx1.two.test.    A 192.0.2.2
mx2.two.test.    A 192.0.2.3
implicit.test.   A 192.0.2.9
null.test.       MX 0 .
none.test.       TXT "no mail here"
loop.test.       MX 10 relay.ours.test.
loop.test.       MX 20 mx1.two.test.
second.test.     MX 10 mx2.two.test.
second.test.     MX 20 RELAY.ours.test.
second.test.     MX 30 mx1.two.test.
relay.ours.test. A 192.0.2.100
alias.test.      CNAME two.test.
inside.test.     MX 10 inside.test.
inside.test.     A 127.0.0.1
gone.test.       MX 10 nowhere.gone.test.
half.test.       MX 10 broken.half.test.
half.test.       MX 20 mx2.two.test.
broken.half.test. A 192.0.2.77
allbroken.test.  MX 10 broken.half.test.
xn--mnchen-3ya.test. MX 10 mx2.two.test.
`

func router(t *testing.T, z *zone, set func(*Options)) *Router {
	t.Helper()
	res, err := NewResolver([]string{z.serve(t)}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Resolver: res, Hostname: "relay.ours.test"}
	if set != nil {
		set(&o)
	}
	return New(o)
}

// told is a route in words: "host[address] tls" each, or the refusal.
func told(hops []deliver.Hop, err error) string {
	var re *deliver.RouteError
	if errors.As(err, &re) {
		return fmt.Sprintf("%d %s", re.Code, re.Enhanced)
	}
	if err != nil {
		return err.Error()
	}
	var s []string
	for _, h := range hops {
		s = append(s, strings.TrimSuffix(h.String(), ":25")+" "+string(h.TLS))
	}
	return strings.Join(s, ", ")
}

func TestRoute(t *testing.T) {
	z := newZone(t, records)
	z.broken["broken.half.test."], z.broken["servfail.test."] = true, true
	r := router(t, z, nil)
	for domain, want := range map[string]string{
		"two.test":             "mx1.two.test[2001:db8::1] opportunistic, mx1.two.test[192.0.2.1] opportunistic, mx1.two.test[192.0.2.2] opportunistic, mx2.two.test[192.0.2.3] opportunistic",
		"implicit.test":        "implicit.test[192.0.2.9] opportunistic",
		"null.test":            "556 5.1.10",
		"none.test":            "550 5.4.4",
		"absent.test":          "550 5.1.2",
		"servfail.test":        "451 4.4.3",
		"loop.test":            "554 5.4.6",
		"second.test":          "mx2.two.test[192.0.2.3] opportunistic",
		"alias.test":           "mx1.two.test[2001:db8::1] opportunistic, mx1.two.test[192.0.2.1] opportunistic, mx1.two.test[192.0.2.2] opportunistic, mx2.two.test[192.0.2.3] opportunistic",
		"inside.test":          "451 4.4.4",
		"gone.test":            "550 5.4.4",
		"half.test":            "mx2.two.test[192.0.2.3] opportunistic",
		"allbroken.test":       "451 4.4.3",
		"münchen.test":         "mx2.two.test[192.0.2.3] opportunistic",
		"[192.0.2.5]":          "192.0.2.5 opportunistic",
		"[ipv6:2001:db8::5]":   "[2001:db8::5] opportunistic",
		"[127.0.0.1]":          "550 5.1.2",
		"[ipv6:::ffff:7f00:1]": "550 5.1.2",
		"[nonsense]":           "550 5.1.2",
	} {
		if got := told(r.Route(t.Context(), domain)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", domain, got, want)
		}
	}
}

func TestEqualPreferencesShareTheLoad(t *testing.T) {
	r := router(t, newZone(t, `
a.test. MX 10 one.a.test.
a.test. MX 10 two.a.test.
one.a.test. A 192.0.2.1
two.a.test. A 192.0.2.2`), nil)
	first := map[string]int{}
	for range 200 {
		hops, err := r.Route(t.Context(), "a.test")
		if err != nil {
			t.Fatal(err)
		}
		first[hops[0].Host]++
	}
	if len(first) != 2 {
		t.Errorf("always first: %v", first)
	}
}

func TestAnswersAreRememberedAndLargeOnesFetched(t *testing.T) {
	z := newZone(t, records)
	z.big = true
	r := router(t, z, nil)
	for range 3 {
		if _, err := r.Route(t.Context(), "two.test"); err != nil {
			t.Fatal(err)
		}
	}
	z.set(func() {
		if n := z.asked["MX two.test."]; n != 2 { // by UDP and by TCP
			t.Errorf("asked %d times", n)
		}
	})
}

func TestAnswersExpire(t *testing.T) {
	z := newZone(t, records)
	now := time.Now()
	res, err := NewResolver([]string{z.serve(t)}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	r := New(Options{Resolver: res, Hostname: "relay.ours.test", Now: func() time.Time { return now }})
	ask := func() string { return told(r.Route(context.Background(), "implicit.test")) }
	before := ask()
	z.set(func() { z.rrs["A implicit.test."] = nil })
	if got := ask(); got != before {
		t.Errorf("within the TTL: %s", got)
	}
	now = now.Add(301 * time.Second)
	if got := ask(); got != "550 5.4.4" {
		t.Errorf("after the TTL: %s", got)
	}
}

func TestTable(t *testing.T) {
	via := func(name string) deliver.Router { return deliver.SmartHosts{{Host: name}} }
	tab := Table{Default: via("default"), Domains: map[string]deliver.Router{
		"example.org": via("exact"), ".example.org": via("below"), ".a.example.org": via("deep"), "xn--mnchen-3ya.test": via("idn")}}
	for domain, want := range map[string]string{
		"example.org": "exact", "x.example.org": "below", "a.example.org": "below", "b.a.example.org": "deep",
		"example.com": "default", "notexample.org": "default", "MÜNCHEN.test": "idn", "[192.0.2.1]": "default", "a_b.example.org": "below",
	} {
		hops, err := tab.Route(t.Context(), domain)
		if err != nil || hops[0].Host != want {
			t.Errorf("%s: %v %v, want %s", domain, hops, err, want)
		}
	}
}

func TestBadResolver(t *testing.T) {
	for _, s := range []string{"dns.example", ""} {
		if _, err := NewResolver([]string{s}, time.Now); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
	r, err := NewResolver([]string{"127.0.0.1", "192.0.2.53"}, time.Now)
	if err != nil || r.Trusted() {
		t.Errorf("trusts what came over the network: %v", err)
	}
}
