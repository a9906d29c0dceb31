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

static __always_inline bool is_touched4(__u32 current, __be32 source)
{
	return is_touched(&touched4, INDEX(current) - 1, bpf_ntohl(source) >> GRAIN4(current));
}

/* What the last range says that begins at or before the address. The searches
 * take no branches: with them the verifier would look at every way through. */
static __always_inline __u32 search_page(const struct page *page, __u32 at, __u32 n, __u32 addr)
{
	__u32 step, before;

	for (int i = 0; i < 10 && n > 1; i++) {
		step = n >> 1;
		before = ((__u64)page->from[(at + step) & (PAGE_RANGES - 1)] - addr - 1) >> 63;
		at += step & -before;
		n -= step;
	}
	return page->says[at & (PAGE_RANGES - 1)];
}

static __always_inline bool search_ranges(void *table, const struct chunk *c, __u32 addr,
					  __u32 *says)
{
	__u32 first = c->first / PAGE_RANGES, place = first, step, probe, n;
	struct page *page;

	/* more than one page: it begins the first */
	n = (c->count + PAGE_RANGES - 1) / PAGE_RANGES;
	for (int i = 0; i < 16 && n > 1; i++) {
		step = n >> 1;
		probe = place + step;
		page = bpf_map_lookup_elem(table, &probe);
		if (!page)
			return false;
		place += step & -(__u32)(((__u64)page->from[0] - addr - 1) >> 63);
		n -= step;
	}
	page = bpf_map_lookup_elem(table, &place);
	if (!page)
		return false;
	n = c->count - (place - first) * PAGE_RANGES;
	if (n > PAGE_RANGES)
		n = PAGE_RANGES;
	*says = search_page(page, c->first, n, addr);
	return true;
}

__noinline bool ask_index4(__u32 index, __be32 source, __u32 *says)
{
	__u32 addr = bpf_ntohl(source), place = index * CHUNKS4 + (addr >> 16);
	struct chunk *c;
	void *table;

	if (!says)
		return false;
	c = bpf_map_lookup_elem(&chunks4, &place);
	if (!c)
		return false;
	if (!c->count) {
		*says = c->first;
		return true;
	}
	table = bpf_map_lookup_elem(&pages4, &index);
	return table && search_ranges(table, c, addr & 0xffff, says);
}

/* Its upper bits tell the keys apart (touched6), its lower ones do not: those of a
 * product come from the key's lower ones alone, and many /32s begin alike. */
static __always_inline __u32 hash32(__be32 key)
{
	return key * 0x9e3779b1u;
}

/* Where a chunk stands in its table, by lower bits. */
static __always_inline __u32 place32(__u32 hash)
{
	hash = (hash ^ hash >> 15) * 0x85ebca6bu;
	return hash ^ hash >> 13;
}

__noinline bool ask_index6(__u32 current, __be32 head, __be32 next, __u32 *says)
{
	__u32 index = INDEX(current) - 1;
	struct index *x = bpf_map_lookup_elem(&indexes, &index);
	__u32 hash = hash32(head), first = place32(hash), place;
	struct chunk6 *c;
	void *table;

	if (!says || !x || !x->v6)
		return false;
	if (!is_touched(&touched6, index, hash >> GRAIN6(current))) {
		*says = 0;
		return true;
	}
	table = bpf_map_lookup_elem(&chunks6, &index);
	if (!table)
		return false;
	for (int i = 0; i < CHUNK_PROBES; i++) {
		place = (first + i) & x->mask6;
		c = bpf_map_lookup_elem(table, &place);
		if (!c || !c->used)
			return false;
		if (c->key != head)
			continue;
		if (!c->chunk.count) {
			*says = c->chunk.first;
			return true;
		}
		table = bpf_map_lookup_elem(&pages6, &index);
		return table && search_ranges(table, &c->chunk, bpf_ntohl(next), says);
	}
	return false;
}

/* False: the trie has to say. */
static __always_inline bool ask_index(__u32 current, const struct packet *p, __u32 *says)
{
	if (p->v6)
		return ask_index6(current, p->source[0], p->source[1], says);
	/* Here and not in ask_index4: most strangers end here, and a call's return
	 * costs as much as a cache miss where the CPU needs Safe RET. */
	if (!is_touched4(current, p->source[3])) {
		*says = 0;
		return true;
	}
	return ask_index4(INDEX(current) - 1, p->source[3], says);
}
