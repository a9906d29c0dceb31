package agent

import (
	"net/netip"
	"slices"
	"testing"
)

// mayRelay says what the relay makes of peers: the longest prefix that counts on
// the port.
func mayRelay(ps []Peer, addr string, port uint16) bool {
	return slices.ContainsFunc(ps, func(p Peer) bool {
		return p.Prefix.Contains(netip.MustParseAddr(addr)) && (len(p.Ports) == 0 || slices.Contains(p.Ports, port)) && !slices.Contains(p.Except, port)
	})
}

// TestPeersKeepToTheirPorts: the relay right counts on an entry's ports, and a
// longer prefix without it takes it away on its own ports alone.
func TestPeersKeepToTheirPorts(t *testing.T) {
	a, _ := newTestAgent(t)
	add := allow("192.0.2.0/24", "192.0.2.128/25", "192.0.2.200/32", "198.51.100.0/24", "198.51.100.7/32")
	add.Entries[0].Relay = true
	add.Entries[1].Ports = []uint16{25}
	add.Entries[2].Ports = []uint16{465, 587}
	add.Entries[3].Relay, add.Entries[3].Ports = true, []uint16{25, 587}
	add.Entries[4].Ports = []uint16{25, 587}
	changed(t, a.addEntries, add)
	ps := a.peers()
	for addr, want := range map[string][]uint16{
		"192.0.2.1": {25, 465, 587}, "192.0.2.130": {465, 587}, "192.0.2.200": nil, "192.0.2.201": {465, 587},
		"198.51.100.1": {25, 587}, "198.51.100.7": nil, "203.0.113.1": nil,
	} {
		var got []uint16
		for _, port := range []uint16{25, 465, 587} {
			if mayRelay(ps, addr, port) {
				got = append(got, port)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s may relay on %v, want %v; peers are %v", addr, got, want, ps)
		}
	}
}
