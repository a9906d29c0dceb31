package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// routes are what the control socket answers.
func (a *Agent) routes() []control.Route {
	routes := []control.Route{
		{Pattern: "GET /v1/status", Handler: a.status},
		{Pattern: "GET /v1/entries", Handler: a.listEntries},
		{Pattern: "POST /v1/entries", Handler: a.addEntries},
		{Pattern: "POST /v1/entries/remove", Handler: a.removeEntries},
		{Pattern: "GET /v1/explain", Handler: a.explain},
		{Pattern: "GET /v1/events", Handler: a.listEvents},
		{Pattern: "GET /v1/outcomes", Handler: a.listOutcomes},
		{Pattern: "GET /v1/policy", Handler: a.exportPolicy},
		{Pattern: "POST /v1/policy", Handler: a.applyPolicy},
		{Pattern: "GET /v1/sources", Handler: a.listSources},
		{Pattern: "GET /v1/drift", Handler: a.drift},
		{Pattern: "GET /v1/learn", Handler: a.learn},
		{Pattern: "GET /v1/review", Handler: a.review},
		{Pattern: "GET /v1/history", Handler: a.listHistory},
		{Pattern: "GET /v1/history/{id}", Handler: a.showChange},
		{Pattern: "POST /v1/policy/undo", Handler: a.undoPolicy},
		{Pattern: "POST /v1/policy/confirm", Handler: a.confirmPolicy},
		{Pattern: "GET /v1/accounts", Handler: a.listAccounts},
		{Pattern: "POST /v1/accounts", Handler: a.putAccounts},
		{Pattern: "PUT /v1/accounts/{name}", Handler: a.putAccount},
		{Pattern: "DELETE /v1/accounts/{name}", Handler: a.deleteAccount},
		{Pattern: "/v1/relay/", HTTP: a.relayProxy()},
	}
	for _, t := range a.tasks {
		if r, ok := t.(router); ok {
			routes = append(routes, r.Routes(a)...)
		}
	}
	return routes
}

// status answers GET /v1/status.
func (a *Agent) status(r *http.Request) (any, error) {
	set, p := a.state()
	counters, err := a.kernel.Counters()
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	on, err := a.kernel.Attachments()
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	st := control.Status{Agent: a.ownStatus(set), Filter: FilterStatusOf(counters, on)}
	st.Filter.Mode = p.filter.Mode
	for _, port := range p.ports {
		st.Filter.Ports = append(st.Filter.Ports, portStatus(port))
	}
	if names, missing, err := p.filter.Wanted(); err == nil {
		for _, n := range append(names, missing...) {
			if n == "auto" && len(on) > 0 {
				continue // the default route is away for a moment, the filter is not
			}
			if !slices.ContainsFunc(on, func(at loader.Attachment) bool { return at.Interface == n }) {
				st.Filter.Interfaces = append(st.Filter.Interfaces, control.Interface{Name: n, Warning: "not attached"})
			}
		}
	}
	conns, err := connections(p.numbers())
	if err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	st.Filter.Connections = len(conns)
	st.Relay = a.relayStatus(r.Context())
	st.Pending = a.waiting()
	for _, t := range a.tasks {
		if r, ok := t.(reporter); ok {
			r.Report(&st)
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for i, on := range st.Filter.Interfaces {
		if text := a.remarks[on.Name]; text != "" {
			st.Filter.Interfaces[i].Warning = text
		}
	}
	for part, what := range a.problems {
		st.Problems = append(st.Problems, part+": "+what)
	}
	slices.Sort(st.Problems)
	return st, nil
}

func portStatus(p rule.Port) control.Port {
	word := func(set bool, yes, no string) string {
		if set {
			return yes
		}
		return no
	}
	return control.Port{
		Port: p.Number, Default: p.Default.String(), Mode: word(p.Observe, "observe", "enforce"),
		Filter: word(p.All, "all", "syn"), Refuse: word(p.Reset, "reset", "drop"), Server: word(p.Forward, "elsewhere", "local"),
	}
}

func (a *Agent) ownStatus(set *policy.Set) *control.AgentStatus {
	now := a.now()
	st := &control.AgentStatus{Version: a.version, PID: os.Getpid(), Since: a.began, NextExpiry: set.NextExpiry(now)}
	st.Entries, st.Deny = set.Len(), set.Count(policy.Denies)
	st.Allow = st.Entries - st.Deny
	for e := range set.Having(policy.Expires) {
		switch {
		case !e.Expired(now):
			continue
		case e.Action == policy.Allow:
			st.Allow--
		default:
			st.Deny--
		}
		st.Expired++
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	st.LastSync = a.lastSync
	return st
}

// FilterStatusOf is what the pins alone tell, for status with the agent down.
func FilterStatusOf(counters []loader.Counter, on []loader.Attachment) control.FilterStatus {
	st := control.FilterStatus{Loaded: true, Interfaces: []control.Interface{}, Counters: []control.Counter{}}
	for _, at := range on {
		st.Interfaces = append(st.Interfaces, control.Interface{Name: at.Interface, Mode: at.Mode, Egress: at.Egress, Warning: at.Warning})
	}
	for _, c := range counters {
		st.Counters = append(st.Counters, control.Counter{Port: c.Port, Reason: c.Reason.String(), Verdict: c.Verdict.String(), Observed: c.Observed, Packets: c.Packets})
	}
	return st
}

// listEntries answers GET /v1/entries.
func (a *Agent) listEntries(r *http.Request) (any, error) {
	set, _ := a.state()
	q := r.URL.Query()
	entries := set.All()
	switch covering, within := q.Get("covering"), q.Get("within"); {
	case covering != "" && within != "":
		return nil, control.Errorf(http.StatusBadRequest, "covering and within do not go together")
	case covering != "":
		addr, err := parseAddr(covering)
		if err != nil {
			return nil, err
		}
		entries = set.Covering(addr)
	case within != "":
		p, _, err := policy.ParsePrefix(within)
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "within: %w", err)
		}
		entries = set.Within(p)
	}
	if err := a.readUse(); err != nil {
		return nil, err
	}
	now, ans := a.now(), control.Entries{Entries: []control.ListedEntry{}}
	for e := range entries {
		if action := q.Get("action"); action != "" && string(e.Action) != action || e.Expired(now) != (q.Get("expired") == "1") {
			continue
		}
		le := control.ListedEntry{Entry: e, Expired: e.Expired(now)}
		if use := a.journal.uses.Of(e.ID()); use.Count > 0 {
			le.Hits, le.LastSeen = use.Count, &use.Last
		}
		ans.Entries = append(ans.Entries, le)
	}
	return ans, nil
}

func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return addr, control.Errorf(http.StatusBadRequest, "%q is not an IPv4 or IPv6 address", s)
	}
	return addr.Unmap(), nil
}

// listOutcomes answers GET /v1/outcomes: what the relay's sessions came to.
func (a *Agent) listOutcomes(r *http.Request) (any, error) {
	follow := r.URL.Query().Get("follow") == "1"
	return control.Stream(func(ctx context.Context, emit func(any) error) error {
		return a.outcomes.each(ctx, 0, follow, func(o json.RawMessage) error { return emit(o) })
	}), nil
}

// relayProxy hands requests on to the relay's admin socket. Its settings are
// the agent's alone.
func (a *Agent) relayProxy() http.Handler {
	if a.relay == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			control.WriteError(w, control.Errorf(http.StatusServiceUnavailable, "the relay is not enabled; set [relay] enabled = true"))
		})
	}
	proxy := &httputil.ReverseProxy{
		Transport:     a.relay.Transport(),
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "relay"
			r.Out.URL.Path = "/v1/" + strings.TrimPrefix(r.In.URL.Path, "/v1/relay/")
			r.Out.URL.RawPath = ""
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			control.WriteError(w, control.Errorf(http.StatusServiceUnavailable, "the relay does not answer: %v; synward status says why", err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/relay/"), "/")
		if part != "queue" && part != "quota" && (r.Method != http.MethodGet || part == "settings") {
			control.WriteError(w, control.Errorf(http.StatusForbidden, "the relay's %s is the agent's alone", part))
			return
		}
		proxy.ServeHTTP(w, r)
	})
}
