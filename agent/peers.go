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
		left := []netip.Prefix{e.Prefix}
		for inner := range set.Within(e.Prefix) {
			if isOwn(inner) && inner.Prefix != e.Prefix && !inner.Relay && !inner.Expired(now) && len(inner.Ports) == 0 {
				left = cutOut(left, inner.Prefix)
			}
		}
		for _, p := range left {
			out = append(out, Peer{Prefix: p, Name: e.Note})
		}
	}
	return out
}

// cutOut takes a hole out of prefixes.
func cutOut(ps []netip.Prefix, hole netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		switch {
		case hole.Bits() <= p.Bits() && hole.Contains(p.Addr()):
		case !p.Contains(hole.Addr()):
			out = append(out, p)
		default:
			out = append(out, cutOut(halves(p), hole)...)
		}
	}
	return out
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
	same := slices.Equal(a.granted, peers)
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
