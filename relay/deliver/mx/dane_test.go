package mx

import (
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/deliver"
)

const daneRecords = records + `
_25._tcp.mx1.two.test. TLSA 3 1 1 AABB
_25._tcp.mx1.two.test. TLSA 2 0 1 CCDD
_25._tcp.mx1.two.test. TLSA 1 1 1 EEFF
_25._tcp.mx2.two.test. TLSA 0 0 1 0011
`

func TestDANE(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(*zone)
		opt  func(*Options)
		want string // modes of the two servers' hops
	}{
		"signed":           {nil, nil, "dane dane encrypted"},
		"turned off":       {nil, func(o *Options) { o.NoDANE = true }, "opportunistic opportunistic opportunistic"},
		"MX not signed":    {func(z *zone) { z.plain["two.test."] = true }, nil, "opportunistic opportunistic opportunistic"},
		"host not signed":  {func(z *zone) { z.plain["mx1.two.test."] = true }, nil, "opportunistic opportunistic encrypted"},
		"TLSA not signed":  {func(z *zone) { z.plain["_25._tcp.mx1.two.test."] = true }, nil, "opportunistic opportunistic encrypted"},
		"TLSA suppressed":  {func(z *zone) { z.broken["_25._tcp.mx1.two.test."] = true }, nil, "encrypted"},
		"no TLSA":          {func(z *zone) { delete(z.names, "_25._tcp.mx2.two.test.") }, nil, "dane dane opportunistic"},
		"resolver is afar": {nil, func(o *Options) { o.Resolver.trusted = false }, "opportunistic opportunistic opportunistic"},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone(t, daneRecords)
			if tc.set != nil {
				tc.set(z)
			}
			r := router(t, z, func(o *Options) {
				o.NoIPv6 = true
				if tc.opt != nil {
					tc.opt(o)
				}
			})
			hops, err := r.Route(t.Context(), "two.test")
			if err != nil {
				t.Fatal(err)
			}
			var modes []string
			for _, h := range hops {
				modes = append(modes, string(h.TLS))
				if err := h.Validate(); err != nil {
					t.Error(err)
				}
				if h.TLS == deliver.DANE && h.TLSA != "2 0 1 ccdd\n3 1 1 aabb\n" {
					t.Errorf("records %q", h.TLSA)
				}
			}
			if got := strings.Join(modes, " "); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestTLSASuppressedAtTheOnlyServerDefers(t *testing.T) {
	z := newZone(t, records)
	z.broken["_25._tcp.implicit.test."] = true
	res, err := NewResolver([]string{z.serve(t)}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if got := told(New(Options{Resolver: res}).Route(t.Context(), "implicit.test")); got != "451 4.4.3" {
		t.Errorf("got %s", got)
	}
}
