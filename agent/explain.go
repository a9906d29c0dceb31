package agent

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// explain answers GET /v1/explain: the kernel's own verdict beside the
// policy's. Where they differ something is broken, and the answer says so.
func (a *Agent) explain(r *http.Request) (any, error) {
	addr, err := parseAddr(r.URL.Query().Get("addr"))
	if err != nil {
		return nil, err
	}
	a.planning.RLock()
	defer a.planning.RUnlock()
	set, p := a.state()
	ports, err := p.portsOfRequest(r.URL.Query().Get("port"))
	if err != nil {
		return nil, err
	}
	conns, err := connections(p.numbers())
	if err != nil {
		a.log.Warn("explain without open connections", "error", err)
	}
	ans := control.Explanation{Source: addr, Agree: true}
	for _, port := range ports {
		v, err := a.settledVerdict(set, p, addr, port)
		if err != nil {
			return nil, err
		}
		if v.Caps != nil {
			v.Caps.Open = open(conns, p.caps, v, addr)
		}
		ans.Agree = ans.Agree && v.Agree
		ans.Verdicts = append(ans.Verdicts, v)
	}
	return ans, nil
}

// portsOfRequest is the protected port that a request names, or all where it
// names none.
func (p plan) portsOfRequest(number string) ([]rule.Port, error) {
	if number == "" {
		return p.ports, nil
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return nil, control.Errorf(http.StatusBadRequest, "%q is not a port from 1 to 65535", number)
	}
	port, ok := p.port(uint16(n))
	if !ok {
		return nil, control.Errorf(http.StatusBadRequest, "port %d is not protected: everybody passes; [ports] in the configuration names those that are", n)
	}
	return []rule.Port{port}, nil
}

// settledVerdict is verdict, by the policy that the kernel has: a change that
// comes to it meanwhile, which may take seconds, is no difference.
func (a *Agent) settledVerdict(set *policy.Set, p plan, addr netip.Addr, port rule.Port) (control.PortVerdict, error) {
	v, err := a.verdict(set, p, addr, port)
	for range 3 {
		if err != nil || v.Agree {
			break
		}
		a.mu.RLock()
		now, coming := a.set, a.coming
		a.mu.RUnlock()
		if now == set && coming == nil {
			break
		}
		if set = now; coming != nil {
			set = coming
		}
		v, err = a.verdict(set, p, addr, port)
	}
	return v, err
}

// verdict asks the kernel and the policy about one port.
func (a *Agent) verdict(set *policy.Set, p plan, addr netip.Addr, port rule.Port) (control.PortVerdict, error) {
	k, err := a.kernel.Probe(addr, port.Number)
	if err != nil {
		return control.PortVerdict{}, fmt.Errorf("ask the kernel: %w", err)
	}
	d := set.Decide(a.now(), addr, port)
	v := control.PortVerdict{
		Port: port.Number, Verdict: k.Verdict.String(), Observed: k.Observed, Reason: k.Reason.String(),
		EntryID: k.EntryID, Policy: d.Verdict.String(), Chain: []control.Candidate{},
	}
	for _, c := range d.Chain {
		v.Chain = append(v.Chain, control.Candidate{Entry: c.Entry, Won: c.Decides, Why: c.Why})
		if c.Entry.ID() == k.EntryID {
			e := c.Entry
			v.Entry = &e
		}
	}
	if d.Verdict == rule.Pass {
		v.Caps = capsOf(p.caps, d.Entry)
	}
	v.Agree = agree(k, d)
	return v, nil
}

// agree says whether the kernel does what the policy says. A cap that is
// reached makes the kernel drop what the policy lets pass; then the entry must
// be the same.
func agree(k loader.Answer, d policy.Decision) bool {
	var id uint64
	if d.Entry != nil {
		id = d.Entry.ID()
	}
	kid := k.EntryID
	if kid < rule.FirstID {
		kid = 0 // a port's default
	}
	return kid == id && (k.Verdict == d.Verdict || d.Verdict == rule.Pass && capped(k.Reason))
}

// capped says whether a reason is a cap that is reached.
func capped(r loader.Reason) bool { return r == loader.RateCap || r == loader.ConnCap }

// capsOf are the caps by the deciding entry; nil is a port's default.
func capsOf(c policy.Caps, e *policy.Entry) *control.Caps {
	out := &control.Caps{Connections: c.Conns, Rate: c.Rate.String(), Burst: c.Burst}
	if e == nil {
		return out
	}
	if e.MaxConns != nil {
		out.Connections = *e.MaxConns
	}
	if e.Rate != nil {
		out.Rate = e.Rate.String()
	}
	if e.Burst != nil {
		out.Burst = *e.Burst
	}
	out.Shared = e.Shared
	return out
}

// open counts the connections that the caps count: the source's, or those of
// the whole entry where it shares them.
func open(conns []control.Connection, c policy.Caps, v control.PortVerdict, addr netip.Addr) int {
	bits := 32
	if addr.Is6() {
		bits = c.IPv6Prefix
	}
	source, err := addr.Prefix(bits)
	if err != nil {
		return 0
	}
	for _, cand := range v.Chain {
		if cand.Won && cand.Entry.Shared {
			source = cand.Entry.Prefix
		}
	}
	n := 0
	for _, conn := range conns {
		if source.Contains(conn.Source.Addr()) {
			n++
		}
	}
	return n
}
