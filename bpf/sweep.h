/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One timer a second: slots whose socket never came, and sources long idle. */
#pragma once
#include "cap.h"
#include "kernel.h"

struct bpf_map;

#define SECOND 1000000000ULL
#define TOKEN_NS (5 * SECOND)
#define IDLE_NS (600 * SECOND)
#define IDLE_EVERY 64 /* runs */

static long sweep_token(struct bpf_map *map, struct flow *f, struct token *t, __u64 *now)
{
	struct source s = t->source;

	if (t->cookie || *now < t->taken || *now - t->taken < TOKEN_NS)
		return 0;
	if (!bpf_map_delete_elem(&tokens, f))
		release(&s);
	return 0;
}

/* A source is marked on one walk and removed on the next, a minute later, unless
 * a connection has taken the mark off: nobody holds on to it for that long. */
static long sweep_usage(struct bpf_map *map, struct source *s, struct usage *u, __u64 *now)
{
	__u64 open = LOAD(u->open);

	if (open == USAGE_IDLE)
		bpf_map_delete_elem(&usages, s);
	else if (!open && *now > u->touched + IDLE_NS)
		__sync_val_compare_and_swap(&u->open, 0, USAGE_IDLE);
	return 0;
}

static int sweep(void *map, __u32 *key, struct sweeper *w)
{
	__u64 now = bpf_ktime_get_ns();

	bpf_for_each_map_elem(&tokens, sweep_token, &now, 0);
	if (w->runs++ % IDLE_EVERY == 0)
		bpf_for_each_map_elem(&usages, sweep_usage, &now, 0);
	bpf_timer_start(&w->timer, SECOND, 0);
	return 0;
}
