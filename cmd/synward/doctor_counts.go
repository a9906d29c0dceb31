package main

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/synward/synward/agent/control"
)

// examineCounts looks whether the filter counts as many connections as the
// kernel's socket table has: a cap is no better than its count.
func examineCounts(ctx context.Context, p *patient) []finding {
	if p.status == nil || !slices.ContainsFunc(p.status.Filter.Interfaces, func(i control.Interface) bool { return i.Mode != "" }) {
		return nil // nothing is counted, and others have said why
	}
	var drift control.Drift
	if _, err := control.NewClient(p.file.Control.Socket).Do(ctx, http.MethodGet, "/v1/drift", nil, &drift, nil); err != nil {
		return []finding{warn("counts", "systemctl restart synward", "cannot be compared with the socket table: %s", oneLine(err))}
	}
	again := "systemctl stop synward; rm -r " + filepath.Join(p.file.Filter.PinDir, "ledger") + "; systemctl start synward" // counts anew
	var out []finding
	for _, s := range drift.Sources {
		who := "sources of an entry that is gone"
		if s.Source.IsValid() {
			who = s.Source.String()
		}
		report := fail
		if s.Counted < s.Sockets { // as one from before the filter, whose entry came later
			report = warn
		}
		out = append(out, report("counts", again, "%s: %s counted, the kernel has %s", who,
			plural(int(s.Counted), "connection", "connections"), plural(int(s.Sockets), "socket", "sockets")))
	}
	if len(out) == 0 {
		out = append(out, ok("counts", "%s to protected ports, counted without drift", plural(drift.Sockets, "connection", "connections")))
	}
	return out
}
