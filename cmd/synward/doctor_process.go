package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capability is one that the agent may need, and its number.
type capability struct {
	bit  uint
	name string
}

// needed are the capabilities that the agent needs with this configuration.
func (p *patient) needed() []capability {
	out := []capability{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_PERFMON, "CAP_PERFMON"}}
	if p.file.Relay.Enabled {
		ports := slices.Clone(p.file.Relay.Listen)
		if p.file.Relay.ACME.Enabled {
			_, l := p.file.Relay.ACME.Listener()
			ports = append(ports, l)
		}
		for _, l := range ports {
			if l.Port < 1024 {
				out = append(out, capability{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"})
				break
			}
		}
		out = append(out, capability{unix.CAP_SETUID, "CAP_SETUID"}, capability{unix.CAP_SETGID, "CAP_SETGID"}, capability{unix.CAP_KILL, "CAP_KILL"})
	}
	// the relay's spool and the control socket are given away
	if _, err := user.LookupGroup(p.file.Control.Group); err == nil || p.file.Relay.Enabled {
		out = append(out, capability{unix.CAP_CHOWN, "CAP_CHOWN"})
	}
	return out
}

// examineProcess looks at the capabilities: the agent's where one runs, else
// those of this process.
func examineProcess(_ context.Context, p *patient) []finding {
	who, file := "this process", "proc/self/status"
	if p.status != nil && p.status.Agent != nil {
		who, file = "the agent", fmt.Sprintf("proc/%d/status", p.status.Agent.PID)
	}
	text, err := p.read(file)
	_, hex, found := strings.Cut(text, "CapEff:\t")
	hex, _, _ = strings.Cut(hex, "\n")
	have, perr := strconv.ParseUint(hex, 16, 64)
	if err != nil || !found || perr != nil {
		return []finding{warn("capabilities", "sudo synward doctor", "those of %s cannot be read", who)}
	}
	var missing []string
	for _, c := range p.needed() {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	switch {
	case len(missing) == 0:
		return []finding{ok("capabilities", "%s has all that are needed", who)}
	case p.status == nil:
		return []finding{warn("capabilities", "sudo synward doctor", "%s lacks %s", who, strings.Join(missing, ", "))}
	}
	return []finding{warn("capabilities", p.give(missing), "%s lacks %s", who, strings.Join(missing, ", "))}
}

// give is the command that gives the agent capabilities: what a drop-in says
// comes on top of the unit's own.
func (p *patient) give(capabilities []string) string {
	if _, err := os.Stat(filepath.Join("/", p.root, "run/systemd/system")); err != nil {
		return "stop the agent, then: sudo synward agent"
	}
	const dir = "/etc/systemd/system/synward.service.d"
	return fmt.Sprintf(`mkdir -p %[1]s && printf '[Service]\nCapabilityBoundingSet=%[2]s\n' > %[1]s/zz-capabilities.conf && systemctl daemon-reload && systemctl restart synward`,
		dir, strings.Join(capabilities, " "))
}
