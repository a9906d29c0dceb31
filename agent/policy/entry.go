// Package policy is the pure core: entries, their text form, the precedence
// between them, and the compilation to the rules that the kernel holds. It does
// no I/O and reads no clock; time comes in as an argument.
//
// An Entry is made by New (or Parse), held in a Set, judged by Decide (the
// plain model of the precedence) and turned into rules by Compile (the fast
// form of the same, tested against the model).
package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/loader/rule"
)

// Action is what an entry does for its prefix.
type Action string

// The actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Origin is who made an entry.
type Origin string

// The origins, see the precedence in Decide.
const (
	Operator Origin = "operator" // by a command
	File     Origin = "file"     // by a policy file
	Feed     Origin = "feed"     // by a list that somebody else keeps
	Learned  Origin = "learned"  // by what a source did here, of the agent's proposal
)

// Own says whether the entry counts among the operator's own: his by command or
// by file, or an allow that he has taken over from what was learned.
func (e Entry) Own() bool {
	return e.Origin == Operator || e.Origin == File || e.Origin == Learned && e.Action == Allow
}

// Entry is what an operator manages. Its identity is its Key: a second entry
// with the same one replaces the first. Entries in a Set share their slices
// and pointers with the caller and are never written to.
type Entry struct {
	Action   Action       `json:"action"`
	Prefix   netip.Prefix `json:"prefix"`              // masked
	Ports    []uint16     `json:"ports,omitempty"`     // sorted; empty = every protected port
	MaxConns *uint32      `json:"max_conns,omitempty"` // nil = [caps].connections; 0 = no cap
	Rate     *Rate        `json:"rate,omitempty"`      // nil = [caps].rate; zero = no cap
	Burst    *uint32      `json:"burst,omitempty"`     // nil = [caps].burst
	Shared   bool         `json:"shared,omitempty"`
	Relay    bool         `json:"relay,omitempty"`
	Immune   bool         `json:"immune,omitempty"`
	Expires  time.Time    `json:"expires,omitzero"` // UTC, whole seconds; zero = never
	Origin   Origin       `json:"origin"`
	Feed     string       `json:"feed,omitempty"` // the feed's name, with Origin Feed
	Name     string       `json:"name,omitempty"` // that the prefix was derived from, with Origin Operator; see ParseName
	Note     string       `json:"note,omitempty"`
	By       string       `json:"by,omitempty"` // who made it, "uid 0" or a name
	At       time.Time    `json:"at,omitzero"`  // when
}

// Key is an entry's identity.
type Key struct {
	Origin Origin       `json:"origin"`
	Feed   string       `json:"feed,omitempty"`
	Name   string       `json:"name,omitempty"`
	Action Action       `json:"action"`
	Prefix netip.Prefix `json:"prefix"`
}

// Key returns the entry's identity.
func (e Entry) Key() Key {
	return Key{Origin: e.Origin, Feed: e.Feed, Name: e.Name, Action: e.Action, Prefix: e.Prefix}
}

// String returns the key in one line that no other key shares:
// "operator allow 192.0.2.0/24", "feed:spam deny 192.0.2.1/32",
// "operator:office.example.org allow 192.0.2.1/32".
func (k Key) String() string {
	b := make([]byte, 0, 64)
	b = append(b, k.Origin...)
	if by := k.Feed + k.Name; by != "" { // never both
		b = append(b, ':')
		b = append(b, by...)
	}
	b = append(b, ' ')
	b = append(b, k.Action...)
	b = append(b, ' ')
	return string(k.Prefix.AppendTo(b))
}

// ID returns the number under which the kernel keeps the entry's hits and
// caps: a hash of the identity, so that it survives restarts. A cryptographic
// one, because a feed chooses its own prefixes and must not be able to aim
// them at an operator's entry.
func (k Key) ID() uint64 {
	sum := sha256.Sum256([]byte(k.String()))
	id := binary.BigEndian.Uint64(sum[:])
	if id < rule.FirstID {
		id += rule.FirstID
	}
	return id
}

// ID is the ID of the entry's key.
func (e Entry) ID() uint64 { return e.Key().ID() }

// Expired says whether the entry has ended at now.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// Same says whether two entries mean the same, whoever made them and when.
func (e Entry) Same(o Entry) bool {
	return e.Key() == o.Key() && slices.Equal(e.Ports, o.Ports) &&
		equalPtr(e.MaxConns, o.MaxConns) && equalPtr(e.Rate, o.Rate) && equalPtr(e.Burst, o.Burst) &&
		e.Shared == o.Shared && e.Relay == o.Relay && e.Immune == o.Immune &&
		e.Expires.Equal(o.Expires) && e.Note == o.Note
}

func equalPtr[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// Verdict is what the entry's action gives a source.
func (e Entry) Verdict() rule.Verdict {
	if e.Action == Allow {
		return rule.Pass
	}
	return rule.Drop
}
