/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which entry decides for a source on a port. */
#pragma once
#include "config.h"
#include "index.h"
#include "maps.h"
#include "parse.h"

/* The answer of the policy, before any cap. */
struct match {
	const struct entry *entry;
	struct hit *hit; /* of the entry; a port's default has none */
	__u32 index;	 /* of the entry; below MAX_PORTS it is a port's default */
};

/* What the longest matching prefix says: see DIRECT. */
static __always_inline bool find_rule(__u32 current, const struct packet *p, __u32 *says)
{
	__u32 half = HALF(current), *found;
	void *trie;

	if (p->asked) {
		*says = p->says;
		return true;
	}
	if (INDEX(current) && ask_index(current, p, says) && *says != ASK_TRIE)
		return true;
	if (p->v6) {
		struct prefix6 key = {.len = 128};

		__builtin_memcpy(key.addr, p->source, sizeof(key.addr));
		trie = bpf_map_lookup_elem(&prefixes6, &half);
		if (!trie)
			return false;
		found = bpf_map_lookup_elem(trie, &key);
	} else {
		struct prefix4 key = {.len = 32, .addr = p->source[3]};

		trie = bpf_map_lookup_elem(&prefixes4, &half);
		if (!trie)
			return false;
		found = bpf_map_lookup_elem(trie, &key);
	}
	*says = found ? *found : 0;
	return true;
}

/* The entry that a rule names now. A rule past its time hands on to the next,
 * so that an expiry needs no agent. */
__noinline bool follow_rule(__u32 half, __u32 index, __u32 slot, __u32 *entry)
{
	void *table = bpf_map_lookup_elem(&rules, &half);
	struct rule *rule;
	__u32 now = 0;

	if (!table || !entry || slot >= MAX_PORTS)
		return false;
	for (int i = 0; i < MAX_STEPS; i++) {
		if (!index) {
			*entry = slot;
			return true;
		}
		rule = bpf_map_lookup_elem(table, &index);
		if (!rule)
			return false;
		if (rule->expires && !now)
			now = bpf_ktime_get_boot_ns() / 1000000000;
		if (!rule->expires || now < rule->expires) {
			/* once more: to Linux 6.1 a check does not hold for the
			 * copy of a number that is on the stack already */
			asm volatile("" : "+r"(slot));
			*entry = rule->entry[slot & (MAX_PORTS - 1)];
			return true;
		}
		index = rule->next;
	}
	return false;
}

/* False: the maps are not what they should be, the filter cannot decide. */
static __always_inline bool match(const struct config *cfg, __u32 current, const struct packet *p,
				  __u32 slot, struct match *m)
{
	__u32 says = 0, half = HALF(current);
	struct row *row;
	void *table;

	m->index = slot;
	if (!find_rule(current, p, &says))
		return false;
	if (says & DIRECT)
		m->index = says & ~DIRECT;
	else if (says && !follow_rule(half, says, slot, &m->index))
		return false;
	if (m->index < MAX_PORTS) { /* a stranger: no other map, no call */
		m->entry = &cfg->defaults[m->index & (MAX_PORTS - 1)];
		return true;
	}
	table = bpf_map_lookup_elem(&rows, &half);
	row = table ? bpf_map_lookup_elem(table, &m->index) : 0;
	if (!row)
		return false;
	m->entry = &row->entry;
	m->hit = &row->hit;
	return true;
}
