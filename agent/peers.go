package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// peers are the sources with the relay right, as the entries stand now. The
// relay knows no precedence: a longer prefix of an entry without the right is
// cut out of the one that has it.
func (a *Agent) peers() []Peer {
	set, _ := a.state()
	now := a.now()
	var out []Peer
	for e := range set.Having(policy.Relays) {
		if e.Action != policy.Allow || !isOwn(e) || e.Expired(now) {
			continue
		}
		left := []Peer{{Prefix: e.Prefix, Name: e.Note, Ports: e.Ports}}
		for inner := range set.Within(e.Prefix) {
			if isOwn(inner) && inner.Prefix != e.Prefix && !inner.Relay && !inner.Expired(now) {
				left = cutOut(left, inner.Prefix, inner.Ports)
			}
		}
		out = append(out, left...)
	}
	return out
}

// cutOut takes a hole out of peers: on these ports, none meaning all.
func cutOut(ps []Peer, hole netip.Prefix, ports []uint16) []Peer {
	var out []Peer
	for _, p := range ps {
		switch {
		case hole.Bits() <= p.Prefix.Bits() && hole.Contains(p.Prefix.Addr()):
			if p.Except = union(p.Except, ports); len(ports) > 0 && !within(p.Ports, p.Except) {
				out = append(out, p)
			}
		case !p.Prefix.Contains(hole.Addr()):
			out = append(out, p)
		default:
			var both []Peer
			for _, half := range halves(p.Prefix) {
				h := p
				h.Prefix = half
				both = append(both, h)
			}
			out = append(out, cutOut(both, hole, ports)...)
		}
	}
	return out
}

// union is of two sets of ports, sorted.
func union(a, b []uint16) []uint16 {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	return slices.Compact(all)
}

// within says whether all of ports, of which there are some, are in set.
func within(ports, set []uint16) bool {
	return len(ports) > 0 && !slices.ContainsFunc(ports, func(p uint16) bool { return !slices.Contains(set, p) })
}

func (p Peer) equal(o Peer) bool {
	return p.Prefix == o.Prefix && p.Name == o.Name && slices.Equal(p.Ports, o.Ports) && slices.Equal(p.Except, o.Except)
}

// halves are the two prefixes that make up one.
func halves(p netip.Prefix) []netip.Prefix {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(b)
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(upper, p.Bits()+1)}
}

// pushPeers has a running relay take over the relay rights where they are not
// those that it has. What fails is tried again at the next reconcile.
func (a *Agent) pushPeers(ctx context.Context, ans *control.Changed) {
	if a.relay == nil || !a.relay.State().Running {
		return // it is given them when it starts
	}
	peers := a.peers()
	a.mu.RLock()
	same := slices.EqualFunc(a.granted, peers, Peer.equal)
	a.mu.RUnlock()
	if same {
		a.problem("relay rights", nil)
		return
	}
	err := a.relay.Push(context.WithoutCancel(ctx))
	if err != nil {
		a.mu.Lock()
		a.granted = nil
		a.mu.Unlock()
		err = fmt.Errorf("the relay has not taken over who may relay, and is asked again: %w", err)
		if ans != nil {
			ans.Warnings = append(ans.Warnings, err.Error())
		}
	}
	a.problem("relay rights", err)
}
