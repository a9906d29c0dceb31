/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The caps of a source: new connections per second, by GCRA (ITU-T I.371) on one
 * word; concurrent connections, by a count that only proved handshakes raise.
 * Both are exact across CPUs: every change is a compare-and-swap. */
#pragma once
#include "config.h"
#include "maps.h"
#include "parse.h"

#define CAS_TRIES 16

/* What is counted together when this entry lets this address pass. */
static __always_inline void make_source(const struct config *cfg, const struct entry *e,
					const __be32 *addr, struct source *s)
{
	__u32 bits = cfg->ipv6_prefix;

	__builtin_memset(s, 0, sizeof(*s));
	s->entry = e->id;
	if (e->shared)
		return;
	__builtin_memcpy(s->addr, addr, sizeof(s->addr));
	if (!addr[0] && !addr[1] && addr[2] == bpf_htonl(0xffff))
		return; /* IPv4 */
	for (__u32 i = 0; i < 4; i++) {
		if (bits <= 32u * i)
			s->addr[i] = 0;
		else if (bits < 32u * (i + 1))
			s->addr[i] &= bpf_htonl(~0U << (32 * (i + 1) - bits));
	}
}

static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 32);
}

/* A source's name in the meters. The seed is secret, so that nobody can aim at
 * a bucket. */
static __always_inline __u64 source_tag(const struct config *cfg, const struct source *s)
{
	__u64 h = mix(cfg->seed, s->entry);

	h = mix(h, ((__u64)s->addr[0] << 32) | s->addr[1]);
	h = mix(h, ((__u64)s->addr[2] << 32) | s->addr[3]);
	h = mix(h, cfg->seed >> 32);
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
		if (LOAD(b->way[i].tag) == tag)
			return &b->way[i];
	if (!take)
		return 0;
	for (int i = 0; i < WAYS; i++) {
		struct meter *m = &b->way[i];
		__u64 tat = LOAD(m->tat), owner = LOAD(m->tag), was;

		if (owner == tag) /* since the search above, and charged perhaps */
			return m;
		if (tat > now)
			continue;
		was = __sync_val_compare_and_swap(&m->tag, owner, tag);
		if (was == owner || was == tag) /* tag: the source's other packet was first */
			return m;
	}
	return 0;
}

/* Would one connection more be over the rate? Uses up nothing. */
static __always_inline bool is_over_rate(const struct config *cfg, const struct entry *e,
					 const struct source *s, __u64 now)
{
	struct meter *m;
	__u64 tat;

	if (!e->interval)
		return false;
	m = find_meter(source_tag(cfg, s), now, false);
	if (!m)
		return false;
	tat = LOAD(m->tat);
	return tat > now && tat - now > e->tolerance;
}

/* Uses up one connection of the rate. REASON_RATE, or why the filter cannot tell
 * (that passes), or 0: within the cap. */
__noinline enum reason cap_rate(const struct config *cfg, const struct entry *e,
				const struct source *s)
{
	struct meter *m;
	__u64 now, old, base;

	if (!cfg || !e || !s)
		return REASON_INTERNAL;
	if (!e->interval)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	m = find_meter(source_tag(cfg, s), now, true);
	if (!m)
		return REASON_RATE_FULL;
	for (int i = 0; i < CAS_TRIES; i++) {
		old = LOAD(m->tat);
		base = old > now ? old : now;
		if (base - now > e->tolerance)
			return REASON_RATE;
		if (__sync_val_compare_and_swap(&m->tat, old, base + e->interval) == old)
			return 0;
	}
	return REASON_INTERNAL;
}

/* A source's connections now, without the sweeper's marks. */
static __always_inline __u64 open_now(struct usage *u)
{
	return LOAD(u->open) & ~(USAGE_IDLE | USAGE_DEAD);
}

static __always_inline void note_peak(struct usage *u, __u64 open)
{
	__u64 peak = LOAD(u->peak), was;

	for (int i = 0; i < 4 && open > peak; i++) {
		was = __sync_val_compare_and_swap(&u->peak, peak, open);
		if (was == peak)
			break;
		peak = was;
	}
}

static __always_inline struct usage *find_usage(const struct source *s)
{
	struct usage *u = bpf_map_lookup_elem(&usages, s), fresh = {};

	if (u)
		return u;
	bpf_map_update_elem(&usages, s, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&usages, s);
}

/* One more, unless the cap is reached (0: there is none): REASON_CONNECTIONS, which
 * is counted; or REASON_LEDGER_FULL where there is no room for the source, or the
 * sweeper has just removed it; or 0, and then the slot is the caller's to keep or to
 * give back. One that is only marked as idle is awake again by the same
 * compare-and-swap. */
static __always_inline enum reason reserve(const struct source *s, __u32 cap, struct usage **slot)
{
	struct usage *u = *slot = find_usage(s);

	if (!u)
		return REASON_LEDGER_FULL;
	for (int i = 0; i < CAS_TRIES * 2; i++) {
		__u64 old = LOAD(u->open), open = old & ~USAGE_IDLE;

		if (old == USAGE_DEAD)
			return REASON_LEDGER_FULL;
		if (cap && open >= cap)
			break;
		if (__sync_val_compare_and_swap(&u->open, old, open + 1) == old) {
			note_peak(u, open + 1);
			u->touched = bpf_ktime_get_ns();
			return 0;
		}
	}
	__sync_fetch_and_add(&u->refused, 1);
	return REASON_CONNECTIONS;
}

/* At the cap, as things are. */
static __always_inline bool is_full(const struct entry *e, const struct source *s)
{
	struct usage *u;

	if (!e->conns)
		return false;
	u = bpf_map_lookup_elem(&usages, s);
	if (!u || open_now(u) < e->conns)
		return false;
	__sync_fetch_and_add(&u->refused, 1);
	return true;
}

/* Never below none: what was counted before a count began anew may end after. */
static __always_inline void release(const struct source *s)
{
	struct usage *u = bpf_map_lookup_elem(&usages, s);
	__u64 old;

	if (!u)
		return;
	for (int i = 0; i < CAS_TRIES * 2; i++) {
		old = LOAD(u->open);
		if (!old || old & (USAGE_IDLE | USAGE_DEAD))
			return;
		if (__sync_val_compare_and_swap(&u->open, old, old - 1) == old)
			return;
	}
	__sync_fetch_and_add(&u->open, -1ULL);
}
