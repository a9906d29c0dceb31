/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The verdict on a packet, step by step: docs/datapath.md has the order. */
#pragma once
#include "forward.h"
#include "gate.h"
#include "match.h"
#include "record.h"

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
static __always_inline bool decide(const struct config *cfg, __u32 current, const struct packet *p,
				   struct match *m, struct outcome *o)
{
	if (!match(cfg, current, p, o->slot, m)) {
		give_up(o);
		return false;
	}
	if (m->index >= MAX_PORTS)
		o->entry = m->entry->id;
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
 * is nothing left. But where nobody can see the handshake's end (charge) the SYN
 * counts. */
static __always_inline void judge_attempt(const struct config *cfg, __u32 current,
					  const struct packet *p, struct probe *q, bool charge,
					  struct outcome *o)
{
	struct source source;
	struct match m = {};
	enum reason over;
	__u64 now;
	bool may = decide(cfg, current, p, &m, o);

	if (!may && !o->entry)
		return;
	now = bpf_ktime_get_coarse_ns();
	if (m.hit && !q)
		count_hit(m.hit, now);
	if (!may)
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
	if (q || !charge)
		over = is_over_rate(cfg, m.entry, &source, now) ? REASON_RATE : 0;
	else
		over = cap_rate(cfg, m.entry, &source);
	if (over == REASON_RATE)
		refuse(o, over);
	else if (over)
		o->reason = over;
}

/* Any other segment: does it give birth to a connection, and may it? watched:
 * the server is not a socket of this host, and its answers are seen. */
static __always_inline void judge_segment(CTX *ctx, const struct config *cfg, __u32 current,
					  const struct packet *p, bool watched, struct outcome *o)
{
	const struct port *port = &cfg->ports[o->slot & (MAX_PORTS - 1)];
	struct segment segment = {};
	struct source source;
	struct flow flow = {};
	struct match m = {};
	enum birth birth;
	enum reason over;

	if ((port->all || p->fragment) && !decide(cfg, current, p, &m, o)) {
		if (o->decision == DECISION_DROP)
			refuse(o, p->fragment ? REASON_FRAGMENT : REASON_SEGMENT);
		return;
	}
	o->reason = REASON_NOT_OURS;
	if (!watched && (p->rst || port->forward))
		return;
	birth = watched ? follow_client(ctx, p, &flow, &segment) : find_birth(ctx, p, &flow);
	if (birth == BIRTH_NONE)
		return;
	if (birth == BIRTH_STRAY) {
		refuse(o, REASON_STRAY);
		return;
	}
	if (!decide(cfg, current, p, &m, o)) {
		/* its entry went between the SYN and this, or when it was open */
		if (birth == BIRTH_UNKNOWN) {
			o->decision = DECISION_NONE;
			o->reason = REASON_NOT_OURS;
		}
		return;
	}
	make_source(cfg, m.entry, p->source, &source);
	over = watched ? admit_passage(cfg, m.entry, &source, &flow, &segment)
		       : admit(cfg, m.entry, &source, &flow);
	o->reason = REASON_NOT_OURS;
	if (over == REASON_CONNECTIONS || over == REASON_RATE || over == REASON_STRAY) {
		refuse(o, over);
		/* over the rate the kernel asks again in a second, and then it may
		 * pass; a handshake that it does not remember has to be ended */
		o->proved = (over == REASON_CONNECTIONS && birth != BIRTH_UNKNOWN) ||
			    birth == BIRTH_COOKIE;
	} else if (over) {
		o->reason = over;
	}
}

/* What the filter thinks of a packet. Segments of open connections and all
 * that is not TCP to a protected port leave it as REASON_NOT_OURS. */
static __always_inline void judge(CTX *ctx, const struct config *cfg, __u32 current,
				  struct packet *p, struct probe *q, struct outcome *o)
{
	const struct port *port;
	bool watched;

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
	port = &cfg->ports[o->slot & (MAX_PORTS - 1)];
	watched = port->forward && is_watched(ctx->ingress_ifindex);
	if (!p->flags)
		refuse(o, p->fragment ? REASON_FRAGMENT : REASON_TRUNCATED);
	else if (p->syn)
		judge_attempt(cfg, current, p, q, port->forward && !watched, o);
	else
		judge_segment(ctx, cfg, current, p, watched, o);
	if (o->decision == DECISION_DROP && port->observe)
		o->observed = true;
}
