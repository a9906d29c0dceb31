package agent

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// Count and socket table cannot be read at one moment: what is no drift is gone
// at another look.
const (
	driftLooks = 5
	driftPause = 200 * time.Millisecond
)

// drift answers GET /v1/drift.
func (a *Agent) drift(r *http.Request) (any, error) {
	ans, err := a.lookForDrift()
	for look := 1; look < driftLooks && err == nil && len(ans.Sources) > 0; look++ {
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(driftPause):
		}
		before := ans.Sources
		if ans, err = a.lookForDrift(); err == nil {
			ans.Sources = lasting(before, ans.Sources)
		}
	}
	return ans, err
}

// lasting are those of now that differed before, the same way.
func lasting(before, now []control.SourceDrift) []control.SourceDrift {
	return slices.DeleteFunc(now, func(n control.SourceDrift) bool {
		return !slices.ContainsFunc(before, func(b control.SourceDrift) bool {
			return b.Source == n.Source && (b.Counted > b.Sockets) == (n.Counted > n.Sockets)
		})
	})
}

// lookForDrift compares the filter's counts with the socket table once.
func (a *Agent) lookForDrift() (control.Drift, error) {
	set, p := a.state()
	local, forwards := p.localPorts()
	conns, err := countable(local)
	if err != nil {
		return control.Drift{}, err
	}
	counts, err := a.kernel.Sources()
	if err != nil {
		return control.Drift{}, err
	}
	ids := map[uint64]bool{}
	for _, c := range counts {
		ids[c.EntryID] = true
	}
	c := newComparison(p.caps.IPv6Prefix, conns)
	c.charge(counts, set.ByID(ids))
	now := a.now()
	differ := c.differences(func(s netip.AddrPort) bool {
		port, _ := p.port(s.Port())
		return set.Decide(now, s.Addr(), port).Verdict == rule.Pass
	})
	if forwards { // whose connections are counted too, and are no sockets here
		differ = slices.DeleteFunc(differ, func(d control.SourceDrift) bool { return d.Counted > d.Sockets })
	}
	return control.Drift{Sockets: len(conns), Sources: differ}, nil
}

// localPorts are those whose servers are sockets of this host, and whether there
// are others.
func (p plan) localPorts() (local []uint16, others bool) {
	for _, port := range p.ports {
		if port.Forward {
			others = true
		} else {
			local = append(local, port.Number)
		}
	}
	return local, others
}

// comparison sets counts against sockets, source by source.
type comparison map[netip.Prefix]*account

// account is one source's: what is counted, its sockets, and the address and
// protected port of each socket, of which the policy tells whether it counts.
type account struct {
	counted uint64
	sockets []netip.AddrPort
}

func newComparison(ipv6Prefix int, conns []control.Connection) comparison {
	c := comparison{}
	for _, conn := range conns {
		addr, bits := conn.Source.Addr(), 32
		if addr.Is6() {
			bits = ipv6Prefix
		}
		at := c.at(netip.PrefixFrom(addr, bits).Masked())
		at.sockets = append(at.sockets, netip.AddrPortFrom(addr, conn.Local.Port()))
	}
	return c
}

func (c comparison) at(source netip.Prefix) *account {
	if c[source] == nil {
		c[source] = &account{}
	}
	return c[source]
}

// missing is how many of the sockets nothing is counted for yet.
func (a *account) missing() uint64 {
	if n := uint64(len(a.sockets)); n > a.counted {
		return n - a.counted
	}
	return 0
}

// charge adds what is counted. A shared count, which is an entry's and no
// source's, is of the sources inside whose sockets nothing else is counted for:
// narrow entries first, and last those that are gone, which may be of anybody.
func (c comparison) charge(counts []loader.Source, entries map[uint64]policy.Entry) {
	var shared []loader.Source
	for _, n := range counts {
		switch {
		case n.Open == 0:
		case n.Prefix.IsValid():
			c.at(n.Prefix.Masked()).counted += n.Open
		default:
			n.Prefix = entries[n.EntryID].Prefix
			shared = append(shared, n)
		}
	}
	slices.SortFunc(shared, func(x, y loader.Source) int { return cmp.Compare(y.Prefix.Bits(), x.Prefix.Bits()) })
	for _, n := range shared {
		for source, at := range c {
			if !n.Prefix.IsValid() || n.Prefix.Overlaps(source) {
				part := min(n.Open, at.missing())
				at.counted += part
				n.Open -= part
			}
		}
		if n.Open > 0 {
			c.at(n.Prefix).counted += n.Open
		}
	}
}

// differences are the sources where counts and sockets are not the same. A
// socket that was there before the filter, of a source that may not connect, is
// not counted and has no cap.
func (c comparison) differences(passes func(netip.AddrPort) bool) []control.SourceDrift {
	out := []control.SourceDrift{}
	for source, at := range c {
		expected := uint64(len(at.sockets))
		for _, s := range at.sockets {
			if expected > at.counted && !passes(s) {
				expected--
			}
		}
		if expected != at.counted {
			out = append(out, control.SourceDrift{Source: source, Counted: at.counted, Sockets: expected})
		}
	}
	slices.SortFunc(out, func(x, y control.SourceDrift) int { return x.Source.Addr().Compare(y.Source.Addr()) })
	return out
}
