/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters, hits and events: the only place that writes them. */
#pragma once
#include "maps.h"
#include "match.h"

/* About 0.1 s (HZ=1000) to 0.5 s (HZ=250); 64 records in it are 128 to 512 a
 * second and CPU. Jiffies cost nothing, unlike a clock. */
#define WINDOW 128
#define WINDOW_RECORDS 64
/* A source that goes on is told of again after this many jiffies, 0.5 to 2 s. */
#define REPEAT 512

/* What became of a packet, filled step by step. */
struct outcome {
	enum reason reason;
	enum decision decision;
	bool observed; /* the decision is drop, the port only observes */
	bool proved;   /* the client has shown that the address is its own */
	__u32 slot;    /* MAX_PORTS = port not in sight */
	__u64 entry;   /* id of the entry that decided; 0 = none */
};

static __always_inline void count_packet(const struct outcome *o)
{
	__u32 key = o->reason * (MAX_PORTS + 1) + o->slot;
	struct counter *c = bpf_map_lookup_elem(&counters, &key);

	if (!c)
		return;
	if (o->observed)
		c->observed++;
	else
		c->enforced++;
}

static __always_inline void count_hit(struct hit *hit, __u64 now)
{
	__sync_fetch_and_add(&hit->count, 1);
	hit->last = now;
}

static __always_inline bool within_budget(struct budget *b, __u64 now)
{
	if (b->window != now / WINDOW) {
		b->window = now / WINDOW;
		b->sent = 0;
		b->resets = 0;
	}
	if (b->sent < WINDOW_RECORDS)
		return true;
	b->suppressed++;
	b->total++;
	return false;
}

static __always_inline bool same_source(const struct recent *r, const struct packet *p,
					const __be32 *source, __u8 reason, bool observed)
{
	return r->source[0] == source[0] && r->source[1] == source[1] &&
	       r->source[2] == source[2] && r->source[3] == source[3] && r->port == p->port &&
	       r->reason == reason && r->observed == observed;
}

static __always_inline void send_event(CTX *ctx, const struct packet *p, const struct outcome *o,
				       const struct recent *r, struct budget *b)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) { /* the agent is away or slow */
		b->suppressed++;
		b->total++;
		return;
	}
	e->time = bpf_ktime_get_boot_ns();
	e->entry = o->entry;
	__builtin_memcpy(e->source, r->source, sizeof(e->source));
	e->port = p->port;
	e->reason = o->reason;
	e->observed = o->observed;
	e->ifindex = ctx->ingress_ifindex;
	e->count = r->count;
	e->suppressed = b->suppressed;
	b->suppressed = 0;
	b->sent++;
	bpf_ringbuf_submit(e, 0);
}

/* A source's first refusal is told of at once, those after it in sums. */
static __always_inline void tell(CTX *ctx, const struct packet *p, const struct outcome *o)
{
	const __be32 *source = p->source;
	__u64 now = bpf_jiffies64();
	__u32 zero = 0, index;
	struct budget *b = bpf_map_lookup_elem(&budget, &zero);
	struct recent *r;

	if (!b || !within_budget(b, now))
		return;
	index = (source[0] ^ source[1] ^ source[2] ^ source[3]) * 0x9e3779b1u >> 22;
	r = bpf_map_lookup_elem(&recent, &index);
	if (!r)
		return;
	if (!same_source(r, p, source, o->reason, o->observed)) {
		__builtin_memcpy(r->source, source, sizeof(r->source));
		r->port = p->port;
		r->reason = o->reason;
		r->observed = o->observed;
		r->count = 1;
	} else {
		r->count++;
		if (now - r->sent < REPEAT)
			return;
	}
	r->sent = now;
	send_event(ctx, p, o, r, b);
	r->count = 0;
}
_Static_assert(RECENT == 1 << (32 - 22), "the hash in tell() gives 10 bits");

static __always_inline void record(CTX *ctx, const struct packet *p, const struct outcome *o)
{
	count_packet(o);
	if (o->decision == DECISION_DROP)
		tell(ctx, p, o);
}
