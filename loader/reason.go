package loader

import (
	"fmt"

	"github.com/synward/synward/loader/rule"
)

// Reason says why a verdict was given. The numbers and names are append-only:
// scripts rely on them. They come from enum reason of bpf/abi.h.
type Reason uint8

// The reasons.
const (
	NotOurs     = Reason(filterReasonREASON_NOT_OURS)     // no protected port in sight
	Allowed     = Reason(filterReasonREASON_ALLOWED)      // an allow entry covers the source
	DefaultPass = Reason(filterReasonREASON_DEFAULT_PASS) // no entry, and the port's default is pass
	NoEntry     = Reason(filterReasonREASON_NO_ENTRY)     // no entry, and the port's default is drop
	Denied      = Reason(filterReasonREASON_DENIED)       // a deny entry covers the source
	RateCap     = Reason(filterReasonREASON_RATE)         // the cap on new connections per second
	Fragment    = Reason(filterReasonREASON_FRAGMENT)     // a fragment that starts or hides a connection
	Headers     = Reason(filterReasonREASON_HEADERS)      // more tags or extension headers than the bound
	Truncated   = Reason(filterReasonREASON_TRUNCATED)    // the TCP header is cut
	Internal    = Reason(filterReasonREASON_INTERNAL)     // the filter could not decide
	RateFull    = Reason(filterReasonREASON_RATE_FULL)    // no room to track the source's rate
	ConnCap     = Reason(filterReasonREASON_CONNECTIONS)  // the cap on concurrent connections
	SYNData     = Reason(filterReasonREASON_SYN_DATA)     // a SYN with data, TCP Fast Open
	Stray       = Reason(filterReasonREASON_STRAY)        // a segment that does not finish the handshake it claims to
	Segment     = Reason(filterReasonREASON_SEGMENT)      // a segment of a source that may not connect
	LedgerFull  = Reason(filterReasonREASON_LEDGER_FULL)  // no room to count the source's connections
)

func (r Reason) name() string {
	switch r {
	case NotOurs:
		return "not-ours"
	case Allowed:
		return "allowed"
	case DefaultPass:
		return "default-pass"
	case NoEntry:
		return "no-entry"
	case Denied:
		return "denied"
	case RateCap:
		return "rate-cap"
	case Fragment:
		return "fragment"
	case Headers:
		return "too-many-headers"
	case Truncated:
		return "truncated"
	case Internal:
		return "internal"
	case RateFull:
		return "rate-table-full"
	case ConnCap:
		return "connection-cap"
	case SYNData:
		return "syn-data"
	case Stray:
		return "stray"
	case Segment:
		return "segment"
	case LedgerFull:
		return "ledger-full"
	}
	return ""
}

// String returns the reason's name as status and events print it, "no-entry".
func (r Reason) String() string {
	if n := r.name(); n != "" {
		return n
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// MarshalText writes the name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name.
func (r *Reason) UnmarshalText(text []byte) error {
	for c := range Reason(filterReasonREASON_COUNT) {
		if c.String() == string(text) {
			*r = c
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", text)
}

// Verdict is the one verdict that a reason is given for.
func (r Reason) Verdict() rule.Verdict {
	switch r {
	case NotOurs, Allowed, DefaultPass, Internal, RateFull, LedgerFull:
		return rule.Pass
	}
	return rule.Drop
}
