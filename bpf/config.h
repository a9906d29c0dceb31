/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is in force, and which ports are protected. */
#pragma once
#include "maps.h"

/* Read once, whatever the compiler would rather do. */
#define LOAD(x) (*(volatile typeof(x) *)&(x))

/* current is the word that all of one packet's lookups go by. */
static __always_inline const struct config *current_config(__u32 *current)
{
	__u32 zero = 0, half;
	struct state *st = bpf_map_lookup_elem(&states, &zero);

	*current = st ? LOAD(st->current) : 0;
	half = HALF(*current);
	return bpf_map_lookup_elem(&configs, &half);
}

/* The functions that are not inlined are so for the verifier's sake: it looks
 * at each once, and not once for every way that leads there. docs/kernels.md has
 * the counts; all inlined, an early and smaller form was 862,000 instructions. */
__noinline __u32 find_slot(const struct config *cfg, __be16 port)
{
	if (!cfg || !port)
		return MAX_PORTS;
	for (int i = 0; i < MAX_PORTS; i++)
		if (cfg->ports[i].number == port)
			return i;
	return MAX_PORTS;
}
