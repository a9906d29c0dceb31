package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParsePrefix reads a prefix as operators write it. A bare address is a /32 or
// /128. Host bits are masked off, and the warning then names what was taken
// instead. IPv4-mapped IPv6 addresses and zones are refused.
func ParsePrefix(s string) (p netip.Prefix, warning string, err error) {
	addr, _, hasBits := strings.Cut(s, "/")
	if strings.Contains(addr, "%") {
		return p, "", fmt.Errorf("prefix %q: a zone means nothing to the filter; leave out what follows the %%", s)
	}
	if hasBits {
		p, err = netip.ParsePrefix(s)
	} else {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil {
			p = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if err != nil {
		return netip.Prefix{}, "", fmt.Errorf("prefix %q: not an IPv4 or IPv6 address or prefix such as 192.0.2.0/24 or 2001:db8::/32", s)
	}
	if err := checkMapped(p); err != nil {
		return netip.Prefix{}, "", err
	}
	p, warning = mask(p)
	return p, warning, nil
}

// checkMapped refuses an IPv4-mapped prefix: on the wire such sources are
// IPv4, and an IPv6 rule would never match them.
func checkMapped(p netip.Prefix) error {
	if !p.Addr().Is4In6() {
		return nil
	}
	four := p.Addr().Unmap().String()
	if p.Bits() >= 96 {
		four = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked().String()
	}
	return fmt.Errorf("prefix %q: an IPv4-mapped address never comes over the wire; write the IPv4 form %s", p, four)
}

// mask clears the host bits and says so.
func mask(p netip.Prefix) (netip.Prefix, string) {
	m := p.Masked()
	if m == p {
		return p, ""
	}
	return m, fmt.Sprintf("%s has host bits set; taken as %s", p, m)
}

// ParsePorts reads ports separated by commas and returns them sorted, each
// once. Those that are not in known are refused; an empty known takes any.
func ParsePorts(s string, known []uint16) ([]uint16, error) {
	var ports []uint16
	for _, f := range strings.Split(s, ",") {
		n, err := strconv.ParseUint(f, 10, 16)
		if err != nil || n == 0 || f[0] == '+' {
			return nil, fmt.Errorf("port %q: write numbers from 1 to 65535, separated by commas", f)
		}
		ports = append(ports, uint16(n))
	}
	ports = sortPorts(ports)
	return ports, checkPorts(ports, known)
}

func sortPorts(ports []uint16) []uint16 {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return slices.Compact(ports)
}

func checkPorts(ports, known []uint16) error {
	for _, p := range ports {
		if p == 0 {
			return fmt.Errorf("port 0: write numbers from 1 to 65535")
		}
		if len(known) > 0 && !slices.Contains(known, p) {
			return fmt.Errorf("port %d: the filter does not protect it; it protects %s", p, joinPorts(sortPorts(known), ", "))
		}
	}
	return nil
}

func joinPorts(ports []uint16, sep string) string {
	var b []byte
	for i, p := range ports {
		if i > 0 {
			b = append(b, sep...)
		}
		b = strconv.AppendUint(b, uint64(p), 10)
	}
	return string(b)
}

// maxTTL is the longest time that ParseTTL reads: a hundred years.
const maxTTL = 100 * 365 * 24 * time.Hour

// ParseTTL reads a length of time, such as a time to live: what time.ParseDuration reads, or a whole
// number of days or weeks (30d, 2w). At least a second, at most 100 years.
func ParseTTL(s string) (time.Duration, error) {
	unit := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	d, err := time.ParseDuration(s)
	if u := unit[s[max(0, len(s)-1):]]; err != nil && u != 0 {
		var n uint64
		n, err = strconv.ParseUint(s[:len(s)-1], 10, 16)
		d = time.Duration(n) * u
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("time %q: write it such as 90s, 30m, 24h, 7d or 2w", s)
	case d < time.Second || d > maxTTL:
		return 0, fmt.Errorf("time %q: write at least 1s, at most 100 years", s)
	}
	return d, nil
}

// Compact sorts prefixes, in place, and drops those that another contains.
func Compact(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	out := ps[:0]
	for _, p := range ps {
		if last := len(out) - 1; last < 0 || out[last].Bits() > p.Bits() || !out[last].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}
