package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is N new connections in a period: 20/s, 100/m, 5/h. The zero value is no cap.
type Rate struct {
	N      uint32
	Period time.Duration // a second, a minute or an hour
}

// MaxRate bounds N: above a million in a period the kernel's interval would
// lose its precision, and no such cap protects anything.
const MaxRate = 1_000_000

// MaxBurst bounds a burst, so that burst times interval fits the kernel's word.
const MaxBurst = 1_000_000

// ParseRate reads "20/s", "100/m" or "5/h"; "0" is no cap.
func ParseRate(s string) (Rate, error) {
	num, unit, ok := strings.Cut(s, "/")
	n, err := strconv.ParseUint(num, 10, 32)
	period := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	switch {
	case err != nil || strings.HasPrefix(num, "+") || ok && period == 0:
		return Rate{}, fmt.Errorf("rate %q: write a number per second, minute or hour such as 20/s, 100/m, 5/h, or 0 for no cap", s)
	case n == 0:
		return Rate{}, nil
	case !ok:
		return Rate{}, fmt.Errorf("rate %q: say per what: %d/s, %d/m or %d/h", s, n, n, n)
	case n > MaxRate:
		return Rate{}, fmt.Errorf("rate %q: at most %d, or 0 for no cap", s, MaxRate)
	}
	return Rate{N: uint32(n), Period: period}, nil
}

// String returns the form that ParseRate reads.
func (r Rate) String() string {
	if r.N == 0 {
		return "0"
	}
	unit := r.Period.String()
	switch r.Period {
	case time.Second:
		unit = "s"
	case time.Minute:
		unit = "m"
	case time.Hour:
		unit = "h"
	}
	return strconv.FormatUint(uint64(r.N), 10) + "/" + unit
}

// Interval is the time that one new connection costs; 0 = no cap.
func (r Rate) Interval() time.Duration {
	if r.N == 0 {
		return 0
	}
	return r.Period / time.Duration(r.N)
}

// MarshalText returns the form that ParseRate reads.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRate does.
func (r *Rate) UnmarshalText(b []byte) error {
	parsed, err := ParseRate(string(b))
	if err == nil {
		*r = parsed
	}
	return err
}

// valid says whether ParseRate can have made the rate.
func (r Rate) valid() bool {
	if r == (Rate{}) {
		return true
	}
	return r.N > 0 && r.N <= MaxRate &&
		(r.Period == time.Second || r.Period == time.Minute || r.Period == time.Hour)
}
