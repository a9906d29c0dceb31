package control

import (
	"time"

	"github.com/synward/synward/agent/policy"
)

// Change is one change of the policy, as history keeps it.
type Change struct {
	ID        uint64          `json:"id"` // from 1
	Time      time.Time       `json:"time"`
	UID       *uint32         `json:"uid,omitempty"` // of who asked over the control socket; absent = the agent itself
	By        string          `json:"by"`
	Command   string          `json:"command"` // "allow add", "policy apply", "undo", "rollback", "expiry", …
	Why       string          `json:"why,omitempty"`
	Added     int             `json:"added"`
	Changed   int             `json:"changed"`
	Removed   int             `json:"removed"`
	Rules     RuleChange      `json:"rules"` // what it did to the rules
	Undoes    uint64          `json:"undoes,omitempty"`
	UndoneBy  uint64          `json:"undone_by,omitempty"`
	ConfirmBy time.Time       `json:"confirm_by,omitzero"` // it waits for a confirmation until then
	Entries   *policy.Changes `json:"entries,omitempty"`   // with GET /v1/history/{id} alone
}

// History answers GET /v1/history?last=N: the newest first.
type History struct {
	Changes []Change `json:"changes"`
}

// Undo is the body of POST /v1/policy/undo. Change 0 is the latest one that
// has not been undone.
type Undo struct {
	Change uint64 `json:"change,omitempty"`
	Why    string `json:"why,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Kill   bool   `json:"kill,omitempty"`
}

// Pending is a change that is undone unless it is confirmed.
type Pending struct {
	Change   uint64    `json:"change"`
	Deadline time.Time `json:"deadline"`
}

// Confirmed answers POST /v1/policy/confirm; Change 0: nothing had to be
// confirmed.
type Confirmed struct {
	Change uint64 `json:"change"`
	DryRun bool   `json:"dry_run,omitempty"`
}
