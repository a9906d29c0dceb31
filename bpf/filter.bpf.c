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
#include "gate.h"
#include "ledger.h"
#include "record.h"
#include "reset.h"
#include "sweep.h"

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

/* The policy's verdict on a packet to a protected port. */
static __always_inline bool decide(__u32 current, const struct packet *p, bool probe,
				   struct match *m, struct outcome *o)
{
	if (!match(current, p, o->slot, m)) {
		give_up(o);
		return false;
	}
	if (m->index >= MAX_PORTS) {
		o->entry = m->entry->id;
		if (!probe && p->syn)
			count_hit(HALF(current), m->index);
	}
	if (m->entry->decision != DECISION_PASS) {
		refuse(o, m->index < MAX_PORTS ? REASON_NO_ENTRY : REASON_DENIED);
		return false;
	}
	o->decision = DECISION_PASS;
	o->reason = m->index < MAX_PORTS ? REASON_DEFAULT_PASS : REASON_ALLOWED;
	return true;
}

/* What a test run wants to know of the source, without a trace. */
static __always_inline bool look_full(const struct entry *e, const struct source *s,
				      struct probe *q)
{
	struct usage *u = bpf_map_lookup_elem(&usages, s);

	q->open = u ? open_now(u) : 0;
	q->conns = e->conns;
	return e->conns && q->open >= e->conns;
}

/* A SYN uses nothing up, it may be anybody's: it is only told in time that there
 * is nothing left. But where the server is not a socket of this host nobody can
 * see the handshake's end, and the SYN counts. */
static __always_inline void judge_attempt(const struct config *cfg, __u32 current,
					  const struct packet *p, struct probe *q,
					  struct outcome *o)
{
	struct source source;
	struct match m = {};
	enum reason over;

	if (!decide(current, p, q, &m, o))
		return;
	if (p->fragment) { /* no stack sends one: RFC 1858, RFC 3128 */
		refuse(o, REASON_FRAGMENT);
		return;
	}
	if (p->data) { /* it would open a connection that no handshake proved */
		refuse(o, REASON_SYN_DATA);
		return;
	}
	make_source(cfg, m.entry, p->source, &source);
	if (q ? look_full(m.entry, &source, q) : is_full(m.entry, &source)) {
		refuse(o, REASON_CONNECTIONS);
		return;
	}
	over = cap_rate(cfg, m.entry, &source, q || !cfg->ports[o->slot & (MAX_PORTS - 1)].forward);
	if (over == REASON_RATE)
		refuse(o, over);
	else if (over)
		o->reason = over;
}

/* Any other segment: does it give birth to a connection, and may it? */
static __always_inline void judge_segment(struct xdp_md *ctx, const struct config *cfg,
					  __u32 current, const struct packet *p, struct outcome *o)
{
	const struct port *port = &cfg->ports[o->slot & (MAX_PORTS - 1)];
	struct source source;
	struct flow flow = {};
	struct match m = {};
	enum birth birth;
	enum reason over;

	if ((port->all || p->fragment) && !decide(current, p, true, &m, o)) {
		if (o->decision == DECISION_DROP)
			refuse(o, p->fragment ? REASON_FRAGMENT : REASON_SEGMENT);
		return;
	}
	o->reason = REASON_NOT_OURS;
	if (p->rst || p->fragment || port->forward)
		return;
	birth = find_birth(ctx, p, &flow);
	if (birth == BIRTH_NONE)
		return;
	if (birth == BIRTH_STRAY) {
		refuse(o, REASON_STRAY);
		return;
	}
	if (!decide(current, p, true, &m, o))
		return; /* its entry went between the SYN and this */
	make_source(cfg, m.entry, p->source, &source);
	over = admit(cfg, m.entry, &source, &flow);
	o->reason = REASON_NOT_OURS;
	if (over == REASON_CONNECTIONS || over == REASON_RATE) {
		refuse(o, over);
		/* over the rate the kernel asks again in a second, and then it may
		 * pass; a handshake that it does not remember has to be ended */
		o->proved = over == REASON_CONNECTIONS || birth == BIRTH_COOKIE;
	} else if (over) {
		o->reason = over;
	}
}

/* What the filter thinks of a packet. Segments of open connections and all
 * that is not TCP to a protected port leave it as REASON_NOT_OURS. */
static __always_inline void judge(struct xdp_md *ctx, const struct config *cfg, __u32 current,
				  struct packet *p, struct probe *q, struct outcome *o)
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
	else if (p->syn)
		judge_attempt(cfg, current, p, q, o);
	else
		judge_segment(ctx, cfg, current, p, o);
	if (o->decision == DECISION_DROP && cfg->ports[o->slot].observe)
		o->observed = true;
}

static __always_inline bool may_reset(void)
{
	__u32 zero = 0;
	struct budget *b = bpf_map_lookup_elem(&budget, &zero);

	if (!b || b->resets >= WINDOW_RESETS)
		return false;
	b->resets++;
	return true;
}

/* Silence, or a RST: where the port is set to it, and to a client that has
 * proved its address and thinks itself connected. */
static __always_inline int act(struct xdp_md *ctx, const struct config *cfg, const struct packet *p,
			       const struct outcome *o)
{
	if (o->decision != DECISION_DROP || o->observed)
		return XDP_PASS;
	if (o->slot >= MAX_PORTS || !p->flags || p->rst || p->fragment)
		return XDP_DROP;
	if (!o->proved && !cfg->ports[o->slot & (MAX_PORTS - 1)].reset)
		return XDP_DROP;
	return may_reset() ? send_reset(ctx, p) : XDP_DROP;
}

SEC("xdp.frags")
int synward(struct xdp_md *ctx)
{
	struct outcome o = {.slot = MAX_PORTS};
	struct packet p = {};
	const struct config *cfg;
	struct probe *q;
	__u32 current;

	parse(ctx, &p, &o.reason);
	if (!o.reason && !p.tcp)
		return XDP_PASS;
	cfg = current_config(&current);
	if (!cfg)
		return XDP_PASS;
	q = find_probe(ctx);
	judge(ctx, cfg, current, &p, q, &o);
	if (o.reason == REASON_NOT_OURS)
		return XDP_PASS;
	if (!q) {
		record(ctx, &p, &o);
		return act(ctx, cfg, &p, &o);
	}
	q->reason = o.reason;
	q->decision = o.decision;
	q->observed = o.observed;
	q->entry = o.entry;
	return o.decision == DECISION_DROP && !o.observed ? XDP_DROP : XDP_PASS;
}

SEC("sockops")
int ledger(struct bpf_sock_ops *o)
{
	struct bpf_sock *sk = o->sk;
	__u32 op = o->op, to = o->args[1];
	const struct config *cfg;
	__u32 current;

	if (!sk)
		return 1;
	if (op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		cfg = current_config(&current);
		if (cfg)
			on_open(o, sk, cfg, current);
	} else if (op == BPF_SOCK_OPS_STATE_CB && to == BPF_TCP_CLOSE) {
		on_close(o, sk);
	}
	return 1;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ledger_a, struct sock *sk, int from, int to)
{
	return on_state(sk, from, to);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ledger_b, struct sock *sk, int from, int to)
{
	return on_state(sk, from, to);
}

/* Counts every connection that is open and has no account. */
SEC("iter/tcp")
int adopt(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct tcp_sock *tp;
	__u8 state;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	state = skc->skc_state;
	if (state != BPF_TCP_LISTEN && state != BPF_TCP_CLOSE && state != BPF_TCP_SYN_SENT)
		adopt_socket((struct sock *)tp);
	return 0;
}

/* Run once by each program that is loaded, as a test run: the timer then calls
 * this object's code. 0 = done, 1 = try again. */
SEC("xdp")
int arm(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct sweeper *w = bpf_map_lookup_elem(&sweepers, &zero);
	long err;

	if (!w)
		return 1;
	err = bpf_timer_init(&w->timer, &sweepers, CLOCK_MONOTONIC);
	if (err && err != -EBUSY) /* EBUSY: it is there already */
		return 1;
	if (bpf_timer_set_callback(&w->timer, sweep))
		return 1;
	return bpf_timer_start(&w->timer, SECOND, 0) ? 1 : 0;
}

/* Named, so that their layout reaches the BTF that Go's types come from. */
const struct prefix4 *prefix4_layout;
const struct prefix6 *prefix6_layout;
const struct rule *rule_layout;
const struct entry *entry_layout;
const struct hit *hit_layout;
const struct event *event_layout;
const struct probe *probe_layout;
const struct source *source_layout;
const struct chunk6 *chunk6_layout;
const struct usage *usage_layout;
const enum reason *reason_layout;
const enum decision *decision_layout;

char _license[] SEC("license") = "Dual BSD/GPL";
