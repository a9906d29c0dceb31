// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The filter: parse → match → cap → record → act.
 *
 * What it cannot decide because of a fault of its own (a map missing, a lost
 * race) passes and is counted as REASON_INTERNAL. A packet that hides whether
 * it opens a connection to a protected port is dropped instead. */
#include "abi.h"
#include "maps.h"
#include "parse.h"
#include "match.h"
#include "cap.h"
#include "record.h"

/* The test run's question in front of the packet, or none. */
static __always_inline struct probe *find_probe(struct xdp_md *ctx)
{
	struct probe *q = (void *)(long)ctx->data_meta;
	void *data = (void *)(long)ctx->data;

	if ((void *)(q + 1) > data || q->magic != PROBE_MAGIC)
		return 0;
	return q;
}

/* The functions that are not inlined are so for the verifier's sake: it looks
 * at each once, and not once for every way that leads there (12,500 instructions,
 * of the million it would look at; inlined, 862,000). */
__noinline __u32 find_slot(const struct config *cfg, __be16 port)
{
	if (!cfg || !port)
		return MAX_PORTS;
	for (int i = 0; i < MAX_PORTS; i++)
		if (cfg->ports[i].number == port)
			return i;
	return MAX_PORTS;
}

static __always_inline void refuse(struct outcome *o, enum reason reason)
{
	o->reason = reason;
	o->decision = DECISION_DROP;
}

static __always_inline void give_up(struct outcome *o)
{
	o->reason = REASON_INTERNAL;
	o->decision = DECISION_PASS;
}

/* The verdict on a packet to a protected port whose flags are in sight. */
static __always_inline void decide(const struct config *cfg, __u32 half, const struct packet *p,
				   bool probe, struct outcome *o)
{
	struct match m = {};
	enum reason over;

	if (!match(half, p, o->slot, &m)) {
		give_up(o);
		return;
	}
	if (m.index >= MAX_PORTS) {
		o->entry = m.entry->id;
		if (!probe)
			count_hit(half, m.index);
	}
	if (m.entry->decision != DECISION_PASS) {
		refuse(o, m.index < MAX_PORTS ? REASON_NO_ENTRY : REASON_DENIED);
		return;
	}
	if (p->fragment && p->syn) { /* no stack sends one: RFC 1858, RFC 3128 */
		refuse(o, REASON_FRAGMENT);
		return;
	}
	o->decision = DECISION_PASS;
	o->reason = m.index < MAX_PORTS ? REASON_DEFAULT_PASS : REASON_ALLOWED;
	if (!p->syn)
		return;
	over = cap_rate(cfg, m.entry, p, probe);
	if (over == REASON_RATE)
		refuse(o, over);
	else if (over)
		o->reason = over;
}

/* What the filter thinks of a packet. Segments of open connections and all
 * that is not TCP to a protected port leave it as REASON_NOT_OURS. */
static __always_inline void judge(const struct config *cfg, __u32 half, struct packet *p,
				  bool probe, struct outcome *o)
{
	if (o->reason) { /* the parser was led astray: it may be for any port */
		if (!cfg->enforcing)
			o->observed = true;
		refuse(o, o->reason);
		return;
	}
	if (!p->tcp)
		return;
	o->slot = find_slot(cfg, p->port);
	if (o->slot >= MAX_PORTS)
		return;
	if (!p->flags)
		refuse(o, p->fragment ? REASON_FRAGMENT : REASON_TRUNCATED);
	else if (p->syn || p->fragment)
		decide(cfg, half, p, probe, o);
	if (o->decision == DECISION_DROP && cfg->ports[o->slot].observe)
		o->observed = true;
}

SEC("xdp.frags")
int synward(struct xdp_md *ctx)
{
	struct outcome o = {.slot = MAX_PORTS};
	struct packet p = {};
	__u32 zero = 0, half;
	struct state *st = bpf_map_lookup_elem(&states, &zero);
	struct config *cfg;
	struct probe *q;

	parse(ctx, &p, &o.reason);
	if (!o.reason && !p.tcp)
		return XDP_PASS;
	half = st ? st->active : 0;
	cfg = bpf_map_lookup_elem(&configs, &half);
	if (!cfg)
		return XDP_PASS;
	q = find_probe(ctx);
	judge(cfg, half, &p, q, &o);
	if (o.reason == REASON_NOT_OURS)
		return XDP_PASS;
	if (q) {
		q->reason = o.reason;
		q->decision = o.decision;
		q->observed = o.observed;
		q->entry = o.entry;
	} else {
		record(ctx, &p, &o);
	}
	return o.decision == DECISION_DROP && !o.observed ? XDP_DROP : XDP_PASS;
}

/* Named, so that their layout reaches the BTF that Go's types come from. */
const struct prefix4 *prefix4_layout;
const struct prefix6 *prefix6_layout;
const struct rule *rule_layout;
const struct entry *entry_layout;
const struct hit *hit_layout;
const struct event *event_layout;
const struct probe *probe_layout;
const enum reason *reason_layout;
const enum decision *decision_layout;

char _license[] SEC("license") = "Dual BSD/GPL";
