// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The filter: parse → match → cap → record → act.
 *
 * What it cannot decide because of a fault of its own (a map missing, a lost
 * race) passes and is counted as REASON_INTERNAL. A packet that hides whether
 * it opens a connection to a protected port is dropped instead. */
#include "xdp.h"
#include "abi.h"
#include "maps.h"
#include "parse.h"
#include "match.h"
#include "cap.h"
#include "gate.h"
#include "forward.h"
#include "judge.h"
#include "ledger.h"
#include "egress.h"
#include "glance.h"
#include "record.h"
#include "reset.h"
#include "sweep.h"

/* Silence, or a RST. */
static __always_inline int act(struct xdp_md *ctx, const struct config *cfg, const struct packet *p,
			       const struct outcome *o)
{
	if (o->decision != DECISION_DROP || o->observed)
		return XDP_PASS;
	return wants_reset(cfg, p, o) && write_reset(ctx, p) ? XDP_TX : XDP_DROP;
}

/* A test run's answer, and its packet does nothing else. */
static __always_inline int answer(struct probe *q, const struct outcome *o)
{
	q->reason = o->reason;
	q->decision = o->decision;
	q->observed = o->observed;
	q->entry = o->entry;
	return o->decision == DECISION_DROP && !o->observed ? XDP_DROP : XDP_PASS;
}

SEC("xdp.frags")
int synward(struct xdp_md *ctx)
{
	struct outcome o = {.slot = MAX_PORTS};
	struct probe *q = find_probe(ctx);
	const struct config *cfg;
	struct packet p;
	enum glance at_once;
	__u32 current;

	cfg = current_config(&current);
	if (!cfg)
		return XDP_PASS;
	at_once = glance(ctx, cfg, current, &p, &o);
	if (at_once == GLANCE_OTHER)
		return XDP_PASS;
	if (at_once == GLANCE_STRANGER) {
		if (q)
			return answer(q, &o);
		record(ctx, &p, &o);
		return XDP_DROP;
	}
	if (at_once == GLANCE_NONE) {
		__builtin_memset(&p, 0, sizeof(p));
		parse(ctx, &p, &o.reason);
	}
	judge(ctx, cfg, current, &p, q, &o);
	if (o.reason == REASON_NOT_OURS)
		return XDP_PASS;
	if (q)
		return answer(q, &o);
	record(ctx, &p, &o);
	return act(ctx, cfg, &p, &o);
}

/* On the way out, where a server is not a socket of this host. It only looks:
 * whatever comes after it in the chain goes on. */
SEC("tc")
int egress(struct __sk_buff *skb)
{
	follow_server(skb);
	return TC_ACT_UNSPEC;
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

static __always_inline int arm_passages(void)
{
	__u32 zero = 0;
	struct passage_sweeper *w = bpf_map_lookup_elem(&passage_sweepers, &zero);
	long err;

	if (!w)
		return 1;
	err = bpf_timer_init(&w->timer, &passage_sweepers, CLOCK_MONOTONIC);
	if (err && err != -EBUSY)
		return 1;
	if (bpf_timer_set_callback(&w->timer, sweep_passages))
		return 1;
	return bpf_timer_start(&w->timer, SWEEP_PASSAGES_NS, 0) ? 1 : 0;
}

/* Run once by each program that is loaded, as a test run: the timers then call
 * this object's code. 0 = done, 1 = try again. */
SEC("xdp")
int arm(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct sweeper *w = bpf_map_lookup_elem(&sweepers, &zero);
	long err;

	if (!w || arm_passages())
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
const struct row *row_layout;
const struct event *event_layout;
const struct probe *probe_layout;
const struct source *source_layout;
const struct page *page_layout;
const struct chunk6 *chunk6_layout;
const struct usage *usage_layout;
const enum reason *reason_layout;
const enum decision *decision_layout;

char _license[] SEC("license") = "Dual BSD/GPL";
