package policy

import "time"

// Rate is N new connections in a period: 20/s, 100/m, 5/h. The zero value is no cap.
type Rate struct {
	N      uint32
	Period time.Duration
}
