/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the tries say, faster: a bitmap of what any prefix touches, then sorted
 * ranges. Every fault here only means that the trie is asked. */
#pragma once
#include "maps.h"
#include "parse.h"

#define CHUNK_PROBES 8 /* places that a chunk may stand from its hash's */

static __always_inline bool is_touched(void *bits, __u32 index, __u32 hash)
{
	__u32 word = index * TOUCHED_WORDS + (hash >> 6);
	__u64 *w = bpf_map_lookup_elem(bits, &word);

	return !w || (*w >> (hash & 63)) & 1;
}

/* The rule of the last range that starts at or before the address. The search
 * takes no branches: with them the verifier would look at every way through. */
static __always_inline bool search_ranges(void *table, const struct chunk *c, __u32 addr,
					  __u32 *rule)
{
	__u32 at = c->first, n = c->count, step, probe;
	__u64 *range, below;

	for (int i = 0; i < 24 && n > 1; i++) {
		step = n >> 1;
		probe = at + step;
		range = bpf_map_lookup_elem(table, &probe);
		if (!range)
			return false;
		below = (RANGE_FROM(*range) - (__u64)addr - 1) >> 63;
		at += step & -(__u32)below;
		n -= step;
	}
	range = bpf_map_lookup_elem(table, &at);
	if (!range)
		return false;
	*rule = RANGE_RULE(*range);
	return true;
}

__noinline bool ask_index4(__u32 index, __be32 source, __u32 *rule)
{
	__u32 addr = bpf_ntohl(source), place = index * CHUNKS4 + (addr >> 16);
	struct chunk *c;
	void *table;

	if (!rule)
		return false;
	if (!is_touched(&touched4, index, addr >> 8)) {
		*rule = 0;
		return true;
	}
	c = bpf_map_lookup_elem(&chunks4, &place);
	if (!c)
		return false;
	if (!c->count) {
		*rule = c->first;
		return true;
	}
	table = bpf_map_lookup_elem(&ranges4, &index);
	return table && search_ranges(table, c, addr & 0xffff, rule);
}

static __always_inline __u32 hash32(__be32 key)
{
	return key * 0x9e3779b1u;
}

__noinline bool ask_index6(__u32 index, __be32 head, __be32 next, __u32 *rule)
{
	struct index *x = bpf_map_lookup_elem(&indexes, &index);
	__u32 hash = hash32(head), place;
	struct chunk6 *c;
	void *table;

	if (!rule || !x || !x->v6)
		return false;
	if (!is_touched(&touched6, index, hash >> 8)) {
		*rule = 0;
		return true;
	}
	table = bpf_map_lookup_elem(&chunks6, &index);
	if (!table)
		return false;
	for (int i = 0; i < CHUNK_PROBES; i++) {
		place = (hash + i) & x->mask6;
		c = bpf_map_lookup_elem(table, &place);
		if (!c || !c->used)
			return false;
		if (c->key != head)
			continue;
		if (!c->chunk.count) {
			*rule = c->chunk.first;
			return true;
		}
		table = bpf_map_lookup_elem(&ranges6, &index);
		return table && search_ranges(table, &c->chunk, bpf_ntohl(next), rule);
	}
	return false;
}

/* False: the trie has to say. */
static __always_inline bool ask_index(__u32 index, const struct packet *p, __u32 *rule)
{
	if (p->v6)
		return ask_index6(index, p->source[0], p->source[1], rule);
	return ask_index4(index, p->source[3], rule);
}
