package control

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
)

// Add is the body of POST /v1/entries: entries to add or change, all or none.
// The agent sets origin, who and when.
type Add struct {
	Entries []policy.Entry `json:"entries"`
	Command string         `json:"command,omitempty"` // for history; default "allow add" or "deny add"
	Why     string         `json:"why,omitempty"`     // for history
	DryRun  bool           `json:"dry_run,omitempty"`
	Kill    bool           `json:"kill,omitempty"` // end connections that no longer pass
}

// Remove is the body of POST /v1/entries/remove: the operator's entries of an
// action to remove, all or none. A prefix that is not there is no error.
type Remove struct {
	Action   policy.Action  `json:"action"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Origin   policy.Origin  `json:"origin,omitempty"` // empty = of whichever there are
	Why      string         `json:"why,omitempty"`    // for history
	DryRun   bool           `json:"dry_run,omitempty"`
	Kill     bool           `json:"kill,omitempty"`
}

// Apply is the body of POST /v1/policy: the whole policy's text form. It
// replaces the operator's entries, names and feeds. With Confirm it is undone after that
// time unless POST /v1/policy/confirm comes.
type Apply struct {
	Name    string `json:"name"` // of the file, for messages
	Text    string `json:"text"`
	Why     string `json:"why,omitempty"`     // for history
	Confirm string `json:"confirm,omitempty"` // "2m"
	Yes     bool   `json:"yes,omitempty"`     // also where the growth guard holds a name or feed back
	DryRun  bool   `json:"dry_run,omitempty"`
	Kill    bool   `json:"kill,omitempty"`
}

// Changed answers a change once the kernel has it, or would answer it with
// DryRun.
type Changed struct {
	DryRun    bool             `json:"dry_run"`
	Added     []policy.Entry   `json:"added"`
	Changed   []policy.Changed `json:"changed"`
	Removed   []policy.Entry   `json:"removed"`
	Total     ChangeTotal      `json:"total,omitzero"`      // with ?show=N, which cuts the lists
	Unchanged int              `json:"unchanged"`           // entries that were as wished already
	ID        uint64           `json:"id,omitempty"`        // of the change in history; none where nothing changed
	ConfirmBy time.Time        `json:"confirm_by,omitzero"` // it is undone then, unless it is confirmed
	Missing   []netip.Prefix   `json:"missing,omitempty"`   // to be removed, but not there
	NotNamed  []string         `json:"not_named,omitempty"` // names and feeds to be removed, but not there
	Rules     *RuleChange      `json:"rules,omitempty"`     // what the kernel's maps took; not with DryRun
	CutOff    []Connection     `json:"cut_off,omitempty"`   // open connections whose source no longer passes
	Killed    int              `json:"killed,omitempty"`    // how many of them were ended
	Impact    *Impact          `json:"impact,omitempty"`    // with DryRun: on the attempts of the last days
	Warnings  []string         `json:"warnings,omitempty"`
}

// ChangeTotal counts entries where the lists do not have them all.
type ChangeTotal struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Removed int `json:"removed"`
}

// Shorten leaves the first entries of each list, and counts them all; 0 leaves
// all.
func (c *Changed) Shorten(show int) {
	if show <= 0 || max(len(c.Added), len(c.Changed), len(c.Removed)) <= show {
		return
	}
	c.Total = c.Counts()
	c.Added, c.Changed, c.Removed = first(c.Added, show), first(c.Changed, show), first(c.Removed, show)
}

// first is a copy, so that the rest can be let go of.
func first[T any](all []T, n int) []T { return append([]T{}, all[:min(n, len(all))]...) }

// Counts is how many entries there are of each kind, whatever the lists show.
func (c *Changed) Counts() ChangeTotal {
	if c.Total != (ChangeTotal{}) {
		return c.Total
	}
	return ChangeTotal{Added: len(c.Added), Changed: len(c.Changed), Removed: len(c.Removed)}
}

// RuleChange counts what the kernel's maps took.
type RuleChange struct {
	Added   int `json:"added"`
	Updated int `json:"updated"`
	Removed int `json:"removed"`
}

// Connection is an established connection to a protected port.
type Connection struct {
	Source netip.AddrPort `json:"source"`
	Local  netip.AddrPort `json:"local"`
	Cookie [2]uint32      `json:"-"` // the kernel's name for this very socket
}

// ListedEntry is an entry with what the kernel has counted for it.
type ListedEntry struct {
	policy.Entry
	Expired  bool       `json:"expired,omitempty"`
	Hits     uint64     `json:"hits"`                // attempts that it decided
	LastSeen *time.Time `json:"last_seen,omitempty"` // of the last of them
}

// Entries answers GET /v1/entries?action=&covering=&within=&expired=1.
type Entries struct {
	Entries []ListedEntry `json:"entries"`
}

// Interface is one that the filter is on, or ought to be.
type Interface struct {
	Name    string      `json:"name"`
	Mode    loader.Mode `json:"mode,omitempty"`   // native, generic or tcx; empty = not attached
	Egress  string      `json:"egress,omitempty"` // how what leaves by it is watched: tcx or clsact; empty = it is not
	Warning string      `json:"warning,omitempty"`
}

// Counter is a kernel counter by port and reason.
type Counter struct {
	Port     uint16 `json:"port"` // 0 = of no protected port in sight
	Reason   string `json:"reason"`
	Verdict  string `json:"verdict"`
	Observed bool   `json:"observed,omitempty"` // the verdict was counted, not enforced
	Packets  uint64 `json:"packets"`
}

// Status answers GET /v1/status. The command makes one of the pins alone where
// the agent is down; what only the agent knows is then empty.
type Status struct {
	Agent    *AgentStatus `json:"agent"`             // null = the agent is down
	Pending  *Pending     `json:"pending,omitempty"` // waits for policy confirm
	Filter   FilterStatus `json:"filter"`
	Relay    *RelayStatus `json:"relay,omitempty"`   // absent = not enabled, or not known
	Derived  []Derived    `json:"derived,omitempty"` // what entries come of names and feeds
	Problems []string     `json:"problems,omitempty"`
}

// AgentStatus is what the agent says of itself.
type AgentStatus struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Entries    int       `json:"entries"`
	Allow      int       `json:"allow"`
	Deny       int       `json:"deny"`
	Expired    int       `json:"expired"`
	NextExpiry time.Time `json:"next_expiry,omitzero"`
	LastSync   time.Time `json:"last_sync,omitzero"`
}

// FilterStatus is what the kernel enforces.
type FilterStatus struct {
	Loaded      bool        `json:"loaded"`
	Mode        string      `json:"mode,omitempty"` // enforce or observe
	Interfaces  []Interface `json:"interfaces"`
	Ports       []Port      `json:"ports,omitempty"`
	Counters    []Counter   `json:"counters"`
	Connections int         `json:"connections"` // open ones to protected ports
}

// Port is a protected port.
type Port struct {
	Port    uint16 `json:"port"`
	Default string `json:"default"`          // drop or pass
	Mode    string `json:"mode,omitempty"`   // enforce or observe
	Filter  string `json:"filter,omitempty"` // syn or all
	Refuse  string `json:"refuse,omitempty"` // drop or reset
	Server  string `json:"server,omitempty"` // local or elsewhere
}

// RelayStatus is how the relay's process fares, and what it says itself.
type RelayStatus struct {
	Running  bool            `json:"running"`
	PID      int             `json:"pid,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Adopted  bool            `json:"adopted,omitempty"` // started by an earlier agent
	Restarts int             `json:"restarts"`
	Error    string          `json:"error,omitempty"`
	Own      json.RawMessage `json:"own,omitempty"` // the relay's GET /v1/status
}

// Explanation answers GET /v1/explain?addr=&port=: one verdict for each port.
type Explanation struct {
	Source   netip.Addr    `json:"source"`
	Within   netip.Prefix  `json:"within,omitzero"` // of a name: the prefix that the source stands for
	Verdicts []PortVerdict `json:"verdicts"`
	Agree    bool          `json:"agree"` // the kernel does what the policy says, on every port
}

// PortVerdict is the verdict on a SYN to one port, by the kernel's program and
// by the policy.
type PortVerdict struct {
	Port     uint16        `json:"port"`
	Verdict  string        `json:"verdict"`            // the kernel's
	Observed bool          `json:"observed,omitempty"` // the verdict is counted, not enforced
	Reason   string        `json:"reason"`
	EntryID  uint64        `json:"entry_id,omitempty,string"` // a string in JSON: it has 64 bits
	Entry    *policy.Entry `json:"entry,omitempty"`           // that the kernel took
	Policy   string        `json:"policy"`                    // the verdict by the policy
	Agree    bool          `json:"agree"`
	Chain    []Candidate   `json:"chain"` // in order of precedence
	Caps     *Caps         `json:"caps,omitempty"`
}

// Candidate is an entry that covers the source, and what became of it.
type Candidate struct {
	Entry policy.Entry `json:"entry"`
	Won   bool         `json:"won"`
	Why   string       `json:"why"`
}

// Caps are those on the source by the deciding entry; 0 = none.
type Caps struct {
	Connections uint32 `json:"connections"`
	Open        int    `json:"open"` // connections of the source now
	Rate        string `json:"rate"`
	Burst       uint32 `json:"burst"`
	Shared      bool   `json:"shared,omitempty"`
}

// Event is one line of
// GET /v1/events?follow=1&since=1h&until=10m&source=PREFIX&reason=a,b&port=N.
type Event struct {
	Time       time.Time  `json:"time"`
	Source     netip.Addr `json:"source"`
	Port       uint16     `json:"port"`
	Reason     string     `json:"reason"`
	Observed   bool       `json:"observed,omitempty"`        // it was let pass
	EntryID    uint64     `json:"entry_id,omitempty,string"` // a string in JSON: it has 64 bits
	Interface  string     `json:"interface,omitempty"`
	Count      uint32     `json:"count"`                // attempts that it stands for
	Suppressed uint32     `json:"suppressed,omitempty"` // records before it that the kernel's rate limit held back
	Allow      string     `json:"allow,omitempty"`      // the command that would let the source in
}

// Account is a relay's account, a document of which the agent knows the name.
type Account struct {
	Name string          `json:"name"`
	ETag string          `json:"etag"` // for If-Match
	Doc  json.RawMessage `json:"doc"`
}

// Accounts answers GET /v1/accounts. As the body of POST /v1/accounts it holds
// those to write, all or none: each with the tag of the one that it replaces, or
// without a tag where there must be none.
type Accounts struct {
	Accounts []Account `json:"accounts"`
}

// AccountChange answers POST /v1/accounts, and PUT and DELETE /v1/accounts/{name}.
type AccountChange struct {
	Changed bool   `json:"changed"`
	Warning string `json:"warning,omitempty"` // stored, but not in force yet
}
