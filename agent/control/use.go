package control

import (
	"net/netip"
	"time"

	"github.com/synward/synward/agent/policy"
)

// Impact is what a change would have done to the attempts since a time.
type Impact struct {
	Since  time.Time `json:"since"`
	Cuts   Affected  `json:"cuts"`   // passed, and would have been dropped
	Admits Affected  `json:"admits"` // dropped, and would have passed
}

// Affected are sources whose verdict changes, those with the most attempts
// first; Top are the first of them.
type Affected struct {
	Sources  int              `json:"sources"`
	Attempts uint64           `json:"attempts"`
	Top      []AffectedSource `json:"top,omitempty"`
}

// AffectedSource is one of them.
type AffectedSource struct {
	Source   netip.Prefix `json:"source"`
	Ports    []uint16     `json:"ports,omitempty"` // where the kernel cannot tell: those that its entry opens
	Attempts uint64       `json:"attempts"`
	Last     time.Time    `json:"last"`
}

// SourceUse is a source in the answer to GET /v1/sources?top=N&since=24h&by=.
type SourceUse struct {
	Source   netip.Prefix      `json:"source"`
	Attempts uint64            `json:"attempts"` // Passed + Dropped
	Passed   uint64            `json:"passed"`
	Dropped  uint64            `json:"dropped"`
	Observed uint64            `json:"observed,omitempty"` // of Passed: would have been dropped
	Open     uint64            `json:"open"`               // connections now
	Peak     uint64            `json:"peak,omitempty"`     // most at once, of late
	Ports    []uint16          `json:"ports,omitempty"`    // where the kernel cannot tell: those that its entry opens
	Reasons  map[string]uint64 `json:"reasons,omitempty"`  // of what was dropped or observed
	Last     time.Time         `json:"last,omitzero"`
}

// Sources answers GET /v1/sources.
type Sources struct {
	Since   time.Time   `json:"since"`
	Sources []SourceUse `json:"sources"`
	Others  int         `json:"others"`         // sources beyond the first
	Lost    uint64      `json:"lost,omitempty"` // today's attempts of sources that there was no room to tell apart
}

// Drift answers GET /v1/drift: the sources whose connections the filter counts
// otherwise than the kernel's socket table has them, which are to be none.
type Drift struct {
	Sockets int           `json:"sockets"` // of this host's protected ports
	Sources []SourceDrift `json:"sources"`
}

// SourceDrift is one of them.
type SourceDrift struct {
	Source  netip.Prefix `json:"source"`
	Counted uint64       `json:"counted"`
	Sockets uint64       `json:"sockets"`
}

// Proposal is an entry that learn proposes.
type Proposal struct {
	Entry    policy.Entry   `json:"entry"`
	Sources  []netip.Prefix `json:"sources"` // that it stands for
	Attempts uint64         `json:"attempts"`
	Last     time.Time      `json:"last"`
}

// Learned answers GET /v1/learn?since=7d&min=N&port=N.
type Learned struct {
	Since     time.Time  `json:"since"`
	Proposals []Proposal `json:"proposals"`
	Policy    string     `json:"policy"` // the operator's entries as they are, as text
}

// Finding is something that an operator should look at, with the command that
// mends it.
type Finding struct {
	Kind    string       `json:"kind"` // unused, wide, expired, expiring, duplicate, shadowed
	Entry   policy.Entry `json:"entry"`
	Why     string       `json:"why"`
	Command string       `json:"command"`
}

// Review answers GET /v1/review?days=30.
type Review struct {
	Since    time.Time `json:"since"` // from when on hits are known
	Findings []Finding `json:"findings"`
}
