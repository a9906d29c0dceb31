/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One timer a second: slots whose socket never came, and sources long idle. */
#pragma once
#include "cap.h"
#include "forward.h"
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
 * a connection has taken the mark off. */
static long sweep_usage(struct bpf_map *map, struct source *s, struct usage *u, __u64 *now)
{
	__u64 open = LOAD(u->open);

	if (open == USAGE_IDLE && __sync_val_compare_and_swap(&u->open, open, USAGE_DEAD) == open)
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

/* One walk's orders. */
struct passage_walk {
	__u64 now;
	__u64 linger;
	__u64 held;
	__u64 idle;
};

static long sweep_passage(struct bpf_map *map, struct flow *f, struct passage *c,
			  struct passage_walk *w)
{
	struct source s = c->source;
	__u32 state = LOAD(c->state), epoch = c->epoch;
	__u64 last = LOAD(c->last), age = w->now > last ? w->now - last : 0;

	w->held++;
	if (state == PASSAGE_OPEN && age >= w->idle) {
		if (swap_state(c, PASSAGE_OPEN, PASSAGE_DEAD))
			free_slot(&s, epoch);
	} else if (state == PASSAGE_CLOSING && age >= HOLD_NS) {
		if (swap_state(c, PASSAGE_CLOSING, PASSAGE_OVER))
			free_slot(&s, epoch);
	} else if (state == PASSAGE_OVER && age >= w->linger) {
		swap_state(c, PASSAGE_OVER, PASSAGE_DEAD);
	} else if (state == PASSAGE_DEAD) { /* nobody holds on to it for a whole run */
		bpf_map_delete_elem(&passages, f);
	}
	return 0;
}

static long count_watch(struct bpf_map *map, __u32 *ifindex, __u64 *since, void *none)
{
	return 0;
}

/* Where no interface is watched any more, what is left comes to its end. */
static int sweep_passages(void *map, __u32 *key, struct passage_sweeper *w)
{
	bool watched = bpf_for_each_map_elem(&egresses, count_watch, 0, 0) > 0;
	struct passage_walk walk = {
		.now = bpf_ktime_get_coarse_ns(),
		.linger = w->held > PASSAGES / 2 ? LINGER_SHORT_NS : LINGER_NS,
		.idle = watched ? passage_idle_ns : 0,
	};

	if (watched || w->held) {
		bpf_for_each_map_elem(&passages, sweep_passage, &walk, 0);
		w->held = walk.held;
	}
	bpf_timer_start(&w->timer, SWEEP_PASSAGES_NS, 0);
	return 0;
}
