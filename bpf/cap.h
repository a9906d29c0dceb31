/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Caps per source. Here: new connections per second, by GCRA (ITU-T I.371),
 * one word a source, exact across CPUs. */
#pragma once
#include "maps.h"
#include "parse.h"

#define CAS_TRIES 16

static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 32);
}

/* What is counted together: an entry and the source's address as far as it
 * counts. The seed is secret, so that nobody can aim at a bucket. */
static __always_inline __u64 source_tag(const struct config *cfg, const struct entry *e,
					const struct packet *p)
{
	__u64 high = 0, low = 0, h = mix(cfg->seed, e->id);
	__u32 bits = cfg->ipv6_prefix;

	if (!e->shared && p->v6) {
		high = bpf_be64_to_cpu(((__u64)p->source[1] << 32) | p->source[0]);
		low = bpf_be64_to_cpu(((__u64)p->source[3] << 32) | p->source[2]);
		if (bits < 64) {
			high &= bits ? ~0ULL << (64 - bits) : 0;
			low = 0;
		} else if (bits < 128) {
			low &= bits > 64 ? ~0ULL << (128 - bits) : 0;
		}
	} else if (!e->shared) {
		low = p->source[0];
	}
	h = mix(mix(mix(h, high), low), cfg->seed >> 32);
	return h ? h : 1;
}

/* The source's own meter. A way is taken over only when its time has passed:
 * its word then says no more than a fresh one would. */
static __always_inline struct meter *find_meter(__u64 tag, __u64 now, bool take)
{
	__u32 index = tag & (BUCKETS - 1);
	struct bucket *b = bpf_map_lookup_elem(&meters, &index);

	if (!b)
		return 0;
	for (int i = 0; i < WAYS; i++)
		if (*(volatile __u64 *)&b->way[i].tag == tag)
			return &b->way[i];
	if (!take)
		return 0;
	for (int i = 0; i < WAYS; i++) {
		struct meter *m = &b->way[i];
		__u64 owner = *(volatile __u64 *)&m->tag, was;

		if (*(volatile __u64 *)&m->tat > now)
			continue;
		was = __sync_val_compare_and_swap(&m->tag, owner, tag);
		if (was == owner || was == tag) /* tag: the source's other packet was first */
			return m;
	}
	return 0;
}

/* REASON_RATE, or why the filter cannot tell (that passes), or 0: within the cap. */
__noinline enum reason cap_rate(const struct config *cfg, const struct entry *e,
				const struct packet *p, bool probe)
{
	struct meter *m;
	__u64 now, old, base;

	if (!cfg || !e || !p)
		return REASON_INTERNAL;
	if (!e->interval)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	m = find_meter(source_tag(cfg, e, p), now, !probe);
	if (!m)
		return probe ? 0 : REASON_RATE_FULL;
	for (int i = 0; i < CAS_TRIES; i++) {
		old = *(volatile __u64 *)&m->tat;
		base = old > now ? old : now;
		if (base - now > e->tolerance)
			return REASON_RATE;
		if (probe || __sync_val_compare_and_swap(&m->tat, old, base + e->interval) == old)
			return 0;
	}
	return REASON_INTERNAL;
}
