/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which entry decides for a source on a port. */
#pragma once
#include "config.h"
#include "index.h"
#include "maps.h"
#include "parse.h"

/* The answer of the policy, before any cap. */
struct match {
	struct entry *entry;
	__u32 index; /* of the entry; below MAX_PORTS it is a port's default */
};

/* The slot of the rule of the longest matching prefix; 0 = none. */
static __always_inline bool find_rule(__u32 current, const struct packet *p, __u32 *index)
{
	__u32 half = HALF(current), *found;
	void *trie;

	if (INDEX(current) && ask_index(INDEX(current) - 1, p, index) && *index != ASK_TRIE)
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
	*index = found ? *found : 0;
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
static __always_inline bool match(__u32 current, const struct packet *p, __u32 slot,
				  struct match *m)
{
	__u32 rule = 0, half = HALF(current);
	void *table;

	m->index = slot;
	if (!find_rule(current, p, &rule))
		return false;
	if (rule && !follow_rule(half, rule, slot, &m->index))
		return false;
	table = bpf_map_lookup_elem(&entries, &half);
	if (!table)
		return false;
	m->entry = bpf_map_lookup_elem(table, &m->index);
	return m->entry != 0;
}
