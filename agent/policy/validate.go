package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxNote is the length of a note, in bytes.
const maxNote = 256

// New puts an entry into its canonical form (prefix masked, ports sorted,
// expiry in whole seconds of UTC) and validates it. The warning, where there
// is one, says what was taken instead of what was written. known are the
// protected ports; empty means that any port will do.
func New(e Entry, known []uint16) (_ Entry, warning string, err error) {
	if e.Prefix.IsValid() {
		if err := checkMapped(e.Prefix); err != nil {
			return Entry{}, "", err
		}
		e.Prefix, warning = mask(e.Prefix)
	}
	if len(e.Ports) > 0 {
		e.Ports = sortPorts(e.Ports)
	}
	e.Expires = wholeSecond(e.Expires)
	e.At = e.At.UTC().Round(0)
	if err := e.Validate(known); err != nil {
		return Entry{}, "", err
	}
	return e, warning, nil
}

// wholeSecond rounds up, so that an entry lasts at least as long as was asked.
func wholeSecond(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	whole := t.UTC().Truncate(time.Second)
	if whole.Before(t) {
		whole = whole.Add(time.Second)
	}
	return whole
}

// Validate checks an entry in its canonical form, see New. The error says
// what is wrong and what to write instead.
func (e Entry) Validate(known []uint16) error {
	if e.Action != Allow && e.Action != Deny {
		return fmt.Errorf("action %q: write allow or deny", e.Action)
	}
	if !e.Prefix.IsValid() {
		return errors.New("prefix missing: write an address or prefix such as 192.0.2.0/24")
	}
	if err := checkMapped(e.Prefix); err != nil {
		return err
	}
	if e.Prefix != e.Prefix.Masked() {
		return fmt.Errorf("prefix %s: host bits set; write %s", e.Prefix, e.Prefix.Masked())
	}
	if !slices.Equal(e.Ports, sortPorts(e.Ports)) {
		return fmt.Errorf("ports %s: not sorted or named twice", joinPorts(e.Ports, ","))
	}
	for _, check := range []error{
		checkPorts(e.Ports, known), e.checkOrigin(), e.checkName(), e.checkCaps(), e.checkExpiry(),
		checkText("note", e.Note), checkText("by", e.By),
	} {
		if check != nil {
			return check
		}
	}
	return nil
}

func (e Entry) checkOrigin() error {
	switch e.Origin {
	case Operator, File, Learned:
		if e.Feed != "" {
			return fmt.Errorf("feed %q: only an entry of origin feed names one", e.Feed)
		}
	case Feed:
		return CheckFeedName(e.Feed)
	default:
		return fmt.Errorf("origin %q: write operator, file, feed or learned", e.Origin)
	}
	return nil
}

// CheckFeedName says whether a feed may have the name: 1 to 64 of a-z, 0-9,
// dot, dash and underscore.
func CheckFeedName(name string) error {
	const chars = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	if name == "" || len(name) > 64 || strings.Trim(name, chars) != "" ||
		strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(chars, r) }) {
		return fmt.Errorf("feed name %q: 1 to 64 of a-z, 0-9, dot, dash and underscore", name)
	}
	return nil
}

func (e Entry) checkCaps() error {
	if e.Action == Deny {
		if e.MaxConns != nil || e.Rate != nil || e.Burst != nil || e.Shared || e.Relay || e.Immune {
			return errors.New("a deny entry takes no caps, relay or immune; they belong to allow entries")
		}
		return nil
	}
	if e.Rate != nil && !e.Rate.valid() {
		return fmt.Errorf("rate %s: write 1 to %d per s, m or h, or 0 for no cap", e.Rate, MaxRate)
	}
	if e.Burst != nil && (*e.Burst < 1 || *e.Burst > MaxBurst) {
		return fmt.Errorf("burst %d: write 1 to %d", *e.Burst, MaxBurst)
	}
	if e.Relay && e.Prefix.Bits() == 0 {
		return fmt.Errorf("relay on %s: that is an open relay; name the sources", e.Prefix)
	}
	return nil
}

func (e Entry) checkExpiry() error {
	if e.Expires.IsZero() {
		return nil
	}
	if y := e.Expires.Year(); y < 1970 || y > 9999 {
		return fmt.Errorf("expiry in the year %d: write one from 1970 to 9999, or leave it out", y)
	}
	if e.Expires.Nanosecond() != 0 {
		return fmt.Errorf("expiry %s: write whole seconds", e.Expires.Format(time.RFC3339Nano))
	}
	return nil
}

// checkText refuses what could not be written in the text form, or would
// play tricks on the terminal that it is shown on.
func checkText(what, s string) error {
	switch {
	case len(s) > maxNote:
		return fmt.Errorf("%s: %d bytes long; at most %d", what, len(s), maxNote)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q: not valid UTF-8", what, s)
	case strings.Contains(s, `"`):
		return fmt.Errorf("%s %q: no double quotes", what, s)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%s %q: no control or invisible characters", what, s)
	}
	return nil
}
