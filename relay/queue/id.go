package queue

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// An id is 52 bits of microseconds since 1970 and 12 random bits: it sorts by
// time, and a clock set back cannot easily meet an id of an earlier run.

const (
	idDigits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's: no i, l, o, u
	idLen    = 13
)

// newID returns an id above last.
func newID(now time.Time, last uint64) uint64 {
	id := uint64(now.UnixMicro())<<12 | rand.Uint64()&0xfff
	return max(id, last+1)
}

func formatID(id uint64) string {
	var b [idLen]byte
	for i := idLen - 1; i >= 0; i-- {
		b[i] = idDigits[id&31]
		id >>= 5
	}
	return string(b[:])
}

func parseID(s string) (uint64, error) {
	bad := fmt.Errorf("%w: %.40q is not an item's id", ErrNotFound, s)
	if len(s) != idLen || s[0] > 'f' {
		return 0, bad
	}
	var id uint64
	for i := range len(s) {
		d := digitOf(s[i])
		if d < 0 {
			return 0, bad
		}
		id = id<<5 | uint64(d)
	}
	return id, nil
}

func digitOf(c byte) int {
	for i := range len(idDigits) {
		if idDigits[i] == c {
			return i
		}
	}
	return -1
}
