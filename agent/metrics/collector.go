package metrics

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/synward/synward/agent/control"
)

// Source tells how the agent stands.
type Source func(context.Context) (control.Status, error)

// scrapeTimeout bounds one reading of the status.
const scrapeTimeout = 5 * time.Second

// collector turns a status into metrics.
type collector struct {
	source Source
	descs  map[string]*prometheus.Desc
}

// metric describes one that every scrape may hold.
type metric struct {
	name, help string
	labels     []string
}

var described = [...]metric{
	{"synward_up", "1 where the agent's status could be read.", nil},
	{"synward_build_info", "The agent's version; always 1.", []string{"version"}},
	{"synward_agent_start_time_seconds", "When the agent started, in Unix time.", nil},
	{"synward_entries", "Entries of the policy in force, by action.", []string{"action"}},
	{"synward_entries_expired", "Entries whose time is over.", nil},
	{"synward_problems", "Things that are wrong now; synward status says which.", nil},
	{"synward_pending_changes", "Changes that wait for policy confirm.", nil},
	{"synward_filter_loaded", "1 where the filter is in the kernel.", nil},
	{"synward_filter_enforcing", "1 where the filter drops, 0 where it only observes.", nil},
	{"synward_filter_attached", "1 where the filter is on the interface.", []string{"interface", "mode"}},
	{"synward_filter_packets_total", "Packets by port, verdict and reason; port 0 = not in sight, observed = it would have been dropped.", []string{"port", "verdict", "reason", "observed"}},
	{"synward_connections", "Open connections to the protected ports.", nil},
	{"synward_relay_up", "1 where the relay runs and takes mail.", nil},
	{"synward_relay_restarts_total", "Times that the agent had to start the relay again.", nil},
	{"synward_relay_sessions", "SMTP sessions open now.", nil},
	{"synward_relay_sessions_total", "SMTP sessions since the relay's start.", nil},
	{"synward_relay_messages_accepted_total", "Messages that the relay has taken into its queue.", nil},
	{"synward_relay_refused_total", "Senders, recipients and messages that the relay refused.", nil},
	{"synward_relay_auth_failures_total", "Failed logins.", nil},
	{"synward_relay_unauthorized_total", "Attempts at what the client has no right to.", nil},
	{"synward_relay_self_signed", "1 where the relay's certificate is made up by itself.", nil},
	{"synward_queue_items", "Messages in the queue.", nil},
	{"synward_queue_deferred_items", "Messages in the queue with a failed attempt behind them.", nil},
	{"synward_queue_held_items", "Messages in the queue that an operator holds.", nil},
	{"synward_queue_bytes", "Bytes of the messages in the queue.", nil},
	{"synward_queue_oldest_timestamp_seconds", "When the oldest message came, in Unix time; absent where the queue is empty.", nil},
}

func newCollector(s Source) *collector {
	c := &collector{source: s, descs: map[string]*prometheus.Desc{}}
	for _, m := range described {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	return c
}

// Describe lists the metrics.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect reads the status and sends what it holds.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	st, err := c.source(ctx)
	s := sender{c: c, out: out}
	s.gauge("synward_up", b2f(err == nil))
	if err != nil {
		return
	}
	s.agent(st)
	s.filter(st.Filter)
	if st.Relay != nil {
		s.relay(st.Relay)
	}
}

// sender sends the values of one scrape.
type sender struct {
	c   *collector
	out chan<- prometheus.Metric
}

func (s sender) gauge(name string, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.c.descs[name], prometheus.GaugeValue, v, labels...)
}

func (s sender) counter(name string, v uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.c.descs[name], prometheus.CounterValue, float64(v), labels...)
}

func (s sender) agent(st control.Status) {
	s.gauge("synward_problems", float64(len(st.Problems)))
	s.gauge("synward_pending_changes", b2f(st.Pending != nil))
	if a := st.Agent; a != nil {
		s.gauge("synward_build_info", 1, a.Version)
		s.gauge("synward_agent_start_time_seconds", unix(a.Since))
		s.gauge("synward_entries", float64(a.Allow), "allow")
		s.gauge("synward_entries", float64(a.Deny), "deny")
		s.gauge("synward_entries_expired", float64(a.Expired))
	}
}

func (s sender) filter(f control.FilterStatus) {
	s.gauge("synward_filter_loaded", b2f(f.Loaded))
	s.gauge("synward_filter_enforcing", b2f(f.Loaded && f.Mode == "enforce"))
	s.gauge("synward_connections", float64(f.Connections))
	for _, i := range f.Interfaces {
		mode := string(i.Mode)
		if mode == "" {
			mode = "none"
		}
		s.gauge("synward_filter_attached", b2f(i.Mode != ""), i.Name, mode)
	}
	for _, n := range f.Counters {
		s.counter("synward_filter_packets_total", n.Packets, strconv.Itoa(int(n.Port)), n.Verdict, n.Reason, strconv.FormatBool(n.Observed))
	}
}

// own is what the relay says of itself. It faces strangers: what it says is
// read with care and never becomes a label.
type own struct {
	Ready        bool   `json:"ready"`
	Sessions     int    `json:"sessions"`
	Total        uint64 `json:"sessions_total"`
	Accepted     uint64 `json:"accepted"`
	Refused      uint64 `json:"refused"`
	AuthFailures uint64 `json:"auth_failures"`
	Unauthorized uint64 `json:"unauthorized"`
	SelfSigned   bool   `json:"self_signed"`
	Queue        struct {
		Items    int       `json:"items"`
		Bytes    int64     `json:"bytes"`
		Deferred int       `json:"deferred"`
		Held     int       `json:"held"`
		Oldest   time.Time `json:"oldest"`
	} `json:"queue"`
}

func (s sender) relay(r *control.RelayStatus) {
	var o own
	known := len(r.Own) > 0 && json.Unmarshal(r.Own, &o) == nil
	s.gauge("synward_relay_up", b2f(r.Running && known && o.Ready))
	s.counter("synward_relay_restarts_total", uint64(r.Restarts))
	if !known {
		return
	}
	s.gauge("synward_relay_sessions", float64(o.Sessions))
	s.counter("synward_relay_sessions_total", o.Total)
	s.counter("synward_relay_messages_accepted_total", o.Accepted)
	s.counter("synward_relay_refused_total", o.Refused)
	s.counter("synward_relay_auth_failures_total", o.AuthFailures)
	s.counter("synward_relay_unauthorized_total", o.Unauthorized)
	s.gauge("synward_relay_self_signed", b2f(o.SelfSigned))
	s.gauge("synward_queue_items", float64(o.Queue.Items))
	s.gauge("synward_queue_deferred_items", float64(o.Queue.Deferred))
	s.gauge("synward_queue_held_items", float64(o.Queue.Held))
	s.gauge("synward_queue_bytes", float64(o.Queue.Bytes))
	if !o.Queue.Oldest.IsZero() {
		s.gauge("synward_queue_oldest_timestamp_seconds", unix(o.Queue.Oldest))
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
