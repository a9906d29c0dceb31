package main

import (
	"context"
	"fmt"

	"github.com/synward/synward/agent/control"
)

// examineEgress looks whether the answers of servers that are not sockets of
// this host are seen: without them their connections cannot be counted.
func examineEgress(_ context.Context, p *patient) []finding {
	port := elsewhere(p.status)
	if port == 0 {
		return nil
	}
	var out []finding
	for _, i := range p.status.Filter.Interfaces {
		switch check := i.Name + " egress"; {
		case i.Mode == "":
		case i.Egress != "":
			out = append(out, ok(check, "watched (%s): connections to servers elsewhere are counted", i.Egress))
		default:
			out = append(out, warn(check, fmt.Sprintf("modprobe -a sch_ingress cls_bpf; systemctl reload synward; tc filter show dev %s egress", i.Name),
				"not watched: connections to port %d are not counted, and SYNs use up the rate", port))
		}
	}
	return out
}

// elsewhere is a port whose server is elsewhere, or 0.
func elsewhere(st *control.Status) uint16 {
	if st == nil {
		return 0
	}
	for _, port := range st.Filter.Ports {
		if port.Server == "elsewhere" {
			return port.Port
		}
	}
	return 0
}
