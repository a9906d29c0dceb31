package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay/acme"
)

// relayOwn is the little of the relay's own status that people see.
type relayOwn struct {
	Ready        bool   `json:"ready"`
	Sessions     int    `json:"sessions"`
	Accepted     uint64 `json:"accepted"`
	Refused      uint64 `json:"refused"`
	AuthFailures uint64 `json:"auth_failures"`
	Unauthorized uint64 `json:"unauthorized"`
	Queue        struct {
		Items    int   `json:"items"`
		Bytes    int64 `json:"bytes"`
		Deferred int   `json:"deferred"`
		Damaged  int   `json:"damaged"`
	} `json:"queue"`

	Certificate *acme.Status `json:"certificate"` // nil: not got by ACME
}

func relayRows(r *control.RelayStatus, now time.Time) [][]string {
	if r == nil {
		return nil
	}
	line := "not running"
	if r.Running {
		line = fmt.Sprintf("running, pid %d, since %s", r.PID, ago(r.Since, now))
		if r.Adopted {
			line += ", taken over from an earlier agent"
		}
	}
	if r.Restarts > 0 {
		line += fmt.Sprintf(", restarted %s", plural(r.Restarts, "time", "times"))
	}
	if r.Error != "" {
		line += ": " + r.Error
	}
	rows := [][]string{{"relay", line}}
	var own relayOwn
	if len(r.Own) == 0 || json.Unmarshal(r.Own, &own) != nil {
		return rows
	}
	if n := own.Queue.Damaged; n > 0 {
		rows = append(rows, []string{"damaged", plural(n, "item was", "items were") + " set aside, in corrupt/ of the spool; the journal says why"})
	}
	if c := own.Certificate; c != nil {
		rows = append(rows, []string{"certificate", certificateLine(*c)})
	}
	return append(rows,
		[]string{"sessions", fmt.Sprintf("%d open; messages accepted %d, refused %d; failed logins %d, unauthorised %d", own.Sessions, own.Accepted, own.Refused, own.AuthFailures, own.Unauthorized)},
		[]string{"queue", fmt.Sprintf("%s, %d deferred, %d bytes", plural(own.Queue.Items, "item", "items"), own.Queue.Deferred, own.Queue.Bytes)})
}

// certificateLine says how the certificate fares that the relay gets for itself.
func certificateLine(c acme.Status) string {
	switch {
	case c.Error != "":
		return c.Error + "; tried again " + c.Next.Format(time.DateTime)
	case c.NotAfter.IsZero():
		return "by ACME: is being asked for"
	}
	return fmt.Sprintf("by %s, until %s", c.Issuer, c.NotAfter.Format(time.DateOnly))
}
