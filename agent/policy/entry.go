// Package policy is the pure core: entries, their text form, the precedence
// between them, and the compilation to the rules that the kernel holds. It does
// no I/O and reads no clock; time comes in as an argument.
package policy

import (
	"net/netip"
	"time"
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
	Learned  Origin = "learned"  // by what a source did here
)

// Entry is what an operator manages. Its identity is (Origin, Feed, Action,
// Prefix): a second entry with the same identity replaces the first.
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
	Expires  time.Time    `json:"expires,omitzero"`
	Origin   Origin       `json:"origin"`
	Feed     string       `json:"feed,omitempty"` // the feed's name, with Origin Feed
	Note     string       `json:"note,omitempty"`
	By       string       `json:"by,omitempty"` // who made it, "uid 0" or a name
	At       time.Time    `json:"at,omitzero"`  // when
}

// Expired says whether the entry has ended at now.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}
