package main

import (
	"strings"
	"testing"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay"
)

// What is needed depends on the configuration.
func TestDoctorOnCapabilities(t *testing.T) {
	filter, high, whole := file{}, file{}, file{}
	high.Relay = relay.Config{Enabled: true, Listen: []relay.ListenConfig{{Port: 2525}}}
	whole.Relay = relay.Config{Enabled: true, Listen: []relay.ListenConfig{{Port: 587}}}
	for _, c := range []struct {
		name, caps string
		file       file
		lacks      string
	}{
		{"all", "000001ffffffffff", whole, ""},
		{"the unit's", "000000c0000014e1", whole, ""},
		{"none", "0000000000000000", whole, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_BIND_SERVICE, CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_CHOWN"},
		{"the filter's, with a relay", "000000c000001000", whole, "CAP_NET_BIND_SERVICE, CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_CHOWN"},
		{"no low port", "000000c0000010e1", high, ""},
		{"a low port", "000000c0000010e1", whole, "CAP_NET_BIND_SERVICE"},
		{"the filter's alone", "000000c000001000", filter, ""},
		{"no CAP_KILL", "000000c0000014c1", whole, "CAP_KILL"},
	} {
		p := fakeRoot(t, map[string]string{"proc/7/status": "Name:\tx\nCapEff:\t" + c.caps + "\nSeccomp:\t0\n", "run/systemd/system/x": ""})
		p.file, p.status = c.file, &control.Status{Agent: &control.AgentStatus{PID: 7}}
		got := examineProcess(t.Context(), p)[0]
		if c.lacks == "" {
			if got.Grade != gradeOK {
				t.Errorf("%s: %+v", c.name, got)
			}
		} else if got.Grade != gradeWarn || got.Text != "the agent lacks "+c.lacks || !strings.Contains(got.Mend, "CapabilityBoundingSet="+strings.ReplaceAll(c.lacks, ",", "")+`\n`) {
			t.Errorf("%s: %+v, want %q", c.name, got, c.lacks)
		}
	}
}
