package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Errors that callers may test for with errors.Is.
var (
	ErrFull     = errors.New("queue is full")                    // disk or limit: 452, try again later
	ErrBroken   = errors.New("queue stopped after a disk error") // 451, and restart
	ErrClosed   = errors.New("queue is closed")
	ErrLocked   = errors.New("another process holds the queue")
	ErrNotFound = errors.New("no such item")
	ErrCorrupt  = errors.New("item is damaged on disk and was set aside")
	ErrEnvelope = errors.New("bad envelope")
)

// Recipient is one receiver of a message. Addr is in canonical SMTP form,
// quoted where it must be, without angle brackets.
type Recipient struct {
	Addr   string   `json:"addr"`
	Notify []string `json:"notify,omitempty"` // RFC 3461 4.1: NEVER, or any of SUCCESS, FAILURE, DELAY
	ORcpt  string   `json:"orcpt,omitempty"`  // RFC 3461 4.2, "type;address", address decoded
}

// Envelope is what SMTP says about a message outside of it, and who handed it in.
type Envelope struct {
	From     string      `json:"from"` // empty: the null sender
	Rcpts    []Recipient `json:"rcpts"`
	User     string      `json:"user,omitempty"`
	Source   netip.Addr  `json:"source,omitzero"`
	Session  string      `json:"session,omitempty"`
	EnvID    string      `json:"envid,omitempty"` // RFC 3461 4.4, decoded
	Ret      string      `json:"ret,omitempty"`   // RFC 3461 4.3: FULL or HDRS
	EightBit bool        `json:"eight_bit,omitempty"`
	UTF8     bool        `json:"utf8,omitempty"`    // the header needs SMTPUTF8; addresses show that themselves
	Trusted  bool        `json:"trusted,omitempty"` // Source has the right to relay
	Helo     string      `json:"helo,omitempty"`
	Hold     bool        `json:"hold,omitempty"` // it waits for Release from the beginning
}

// check refuses what must never reach a next hop or a log line.
func (e Envelope) check() error {
	if len(e.Rcpts) == 0 {
		return fmt.Errorf("%w: no recipients", ErrEnvelope)
	}
	words := []string{e.From, e.EnvID, e.Ret}
	for _, r := range e.Rcpts {
		if r.Addr == "" {
			return fmt.Errorf("%w: empty recipient", ErrEnvelope)
		}
		words = append(words, r.Addr, r.ORcpt)
		words = append(words, r.Notify...)
	}
	for _, w := range words {
		if !utf8.ValidString(w) || strings.IndexFunc(w, isControl) >= 0 {
			return fmt.Errorf("%w: control character or invalid UTF-8 in %q", ErrEnvelope, w)
		}
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// Status is how a recipient ended.
type Status string

// The ends of a recipient.
const (
	Delivered Status = "delivered" // the next hop answered 250
	Failed    Status = "failed"    // refused for good
	Expired   Status = "expired"   // waited too long
)

// Result is the end of one recipient.
type Result struct {
	Rcpt   int    `json:"rcpt"` // index into Rcpts
	Status Status `json:"status"`
	Reply  string `json:"reply,omitempty"`
}

// Item is a queued message without its body. It is a copy.
type Item struct {
	ID string `json:"id"` // 13 characters of 0-9a-z, sorts by time
	Envelope
	Size     int64     `json:"size"` // octets of the body as handed to Add
	Received time.Time `json:"received"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"` // when it is due
	LastErr  string    `json:"last_error,omitempty"`
	Done     []Result  `json:"done,omitempty"`
	Held     bool      `json:"held,omitempty"`
	Warned   bool      `json:"warned,omitempty"` // the sender was told of the delay
	Forced   bool      `json:"-"`                // an operator asked for this attempt
}

// Pending returns the indexes of the recipients that have not ended.
func (it Item) Pending() []int {
	ended := make(map[int]bool, len(it.Done))
	for _, r := range it.Done {
		ended[r.Rcpt] = true
	}
	var left []int
	for i := range it.Rcpts {
		if !ended[i] {
			left = append(left, i)
		}
	}
	return left
}

// Update is what one attempt changed.
type Update struct {
	Results []Result  // recipients that ended
	Next    time.Time // when to try the others
	Err     string    // why they are still here
	Warned  bool      // the sender has been told of the delay
}

// Stats are the queue's totals.
type Stats struct {
	Items    int       `json:"items"`
	Bytes    int64     `json:"bytes"`
	Deferred int       `json:"deferred"` // items with a failed attempt behind them
	Held     int       `json:"held"`
	Damaged  int       `json:"damaged,omitempty"` // items set aside in the spool's corrupt/
	Oldest   time.Time `json:"oldest,omitzero"`   // zero: the queue is empty
}

// Options configure Open. Zero values take the defaults.
type Options struct {
	SegmentSize int64         // octets, 64 MiB; at least 64 KiB. Disk used when idle is three of them
	InlineMax   int           // octets, 512 KiB; a larger body has a file of its own. At most SegmentSize/8
	CacheBytes  int64         // octets of bodies kept in memory for their first attempt, 64 MiB; negative: none
	MaxItems    int           // 0: no limit
	MaxBytes    int64         // octets of bodies, 0: no limit
	FlushDelay  time.Duration // 50 ms: the longest that a result waits for its commit
	Log         *slog.Logger
	Now         func() time.Time

	disk disk // tests only
}

func (o Options) withDefaults() Options {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	o.SegmentSize = max(o.SegmentSize, 64<<10) &^ 4095
	if o.InlineMax == 0 {
		o.InlineMax = 512 << 10
	}
	o.InlineMax = min(o.InlineMax, int(o.SegmentSize/8))
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.FlushDelay == 0 {
		o.FlushDelay = 50 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "queue")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
	return o
}
