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

/* The slot of a protected port, or MAX_PORTS. No loop: every packet pays for it,
 * and the verifier would follow each way out. */
static __always_inline __u32 find_slot(const struct config *cfg, __be16 port)
{
	__u32 slot = cfg->slots[PORT_HASH(port, cfg->spread)] & (MAX_PORTS - 1);

	/* slots that are not in use have port 0 */
	return port && cfg->ports[slot].number == port ? slot : MAX_PORTS;
}
