package growth_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/synward/synward/agent/growth"
)

func list(s string) (out []netip.Prefix) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func many(format string, n int) (out []netip.Prefix) {
	for i := range n {
		out = append(out, netip.MustParsePrefix(fmt.Sprintf(format, i)))
	}
	return out
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		was, now []netip.Prefix
		most     int
		why      string // "" = it may
	}{
		"same":              {list("0.0.0.0/0"), list("0.0.0.0/0"), 1, ""},
		"few":               {nil, list("192.0.2.0/24 2001:db8::/32"), 2, ""},
		"too many":          {list("192.0.2.0/24"), list("192.0.2.0/24 198.51.100.0/24 203.0.113.0/24"), 1, "2 new prefixes, more than 1"},
		"any number":        {nil, many("192.0.%d.0/24", 200), 0, ""},
		"shrinking":         {many("192.0.%d.0/24", 200), list("192.0.1.0/24"), 1, ""},
		"a /8":              {nil, list("10.0.0.0/8"), 0, ""},
		"a /7":              {nil, list("10.0.0.0/8 12.0.0.0/7 14.0.0.0/6"), 0, "14.0.0.0/6 is wider than a /8"},
		"everything":        {nil, list("0.0.0.0/0"), 0, "0.0.0.0/0 is wider"},
		"all of IPv6":       {nil, list("::/0"), 0, "::/0 is wider than a /19"},
		"two /9s and more":  {nil, list("10.0.0.0/9 11.0.0.0/9 12.0.0.0/24"), 0, "3 new prefixes are wider than an IPv4 /8"},
		"many wide of IPv6": {nil, many("2a%02x::/20", 3), 0, "wider than an IPv6 /19 together"},
		"the old do not count": {
			list("10.0.0.0/9 11.0.0.0/9"), list("10.0.0.0/9 11.0.0.0/9 12.0.0.0/9"), 0, ""},
	} {
		err := growth.Check(c.was, c.now, c.most)
		var held *growth.Held
		switch {
		case c.why == "" && err != nil:
			t.Errorf("%s: held back: %v", name, err)
		case c.why != "" && (!errors.As(err, &held) || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
}
