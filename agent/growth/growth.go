// Package growth holds back a set of prefixes that somebody else has changed
// by more than the operator may have meant: many new prefixes at once, or wide
// ones. It is pure.
package growth

import (
	"fmt"
	"net/netip"
)

// Width beyond which a set needs a yes: as a single prefix, and as the space
// that is new altogether.
const (
	widest4 = 8  // bits of an IPv4 prefix
	widest6 = 19 // bits of an IPv6 prefix: what a registry gives a large provider
)

// Held says why a set needs the operator's yes.
type Held struct {
	New  int          // prefixes that were not there
	Wide netip.Prefix // the widest, where it is too wide; else invalid
	Why  string       // in words
}

// Error is the reason in words.
func (h *Held) Error() string { return h.Why }

// Check says whether a set may take the place of the last good one by itself;
// the error is a *Held. most is how many new prefixes may: 0 = any number.
func Check(was, now []netip.Prefix, most int) error {
	old := make(map[netip.Prefix]bool, len(was))
	for _, p := range was {
		old[p] = true
	}
	h := &Held{}
	var space4, space6 uint64 // in /32 and /64
	for _, p := range now {
		if old[p] {
			continue
		}
		h.New++
		switch {
		case p.Addr().Is4():
			space4 += 1 << (32 - p.Bits())
			if p.Bits() < widest4 && h.wider(p) {
				h.Wide = p
			}
		default:
			space6 += 1 << (64 - min(p.Bits(), 64)) // a /0 wraps to none, but is wide by itself
			if p.Bits() < widest6 && h.wider(p) {
				h.Wide = p
			}
		}
	}
	switch {
	case h.Wide.IsValid():
		h.Why = fmt.Sprintf("%s is wider than a /%d", h.Wide, widest(h.Wide))
	case space4 > 1<<(32-widest4):
		h.Why = fmt.Sprintf("its %d new prefixes are wider than an IPv4 /%d together", h.New, widest4)
	case space6 > 1<<(64-widest6):
		h.Why = fmt.Sprintf("its %d new prefixes are wider than an IPv6 /%d together", h.New, widest6)
	case most > 0 && h.New > most:
		h.Why = fmt.Sprintf("it has %d new prefixes, more than %d", h.New, most)
	default:
		return nil
	}
	return h
}

func (h *Held) wider(p netip.Prefix) bool { return !h.Wide.IsValid() || p.Bits() < h.Wide.Bits() }

func widest(p netip.Prefix) int {
	if p.Addr().Is4() {
		return widest4
	}
	return widest6
}
