/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The context as XDP has it: a frame, as the driver hands it over. skb.h is the
 * same for TCX. What includes one of them first works for both. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define CTX struct xdp_md

/* The test run's question in front of the packet, or none. */
static __always_inline struct probe *find_probe(struct xdp_md *ctx)
{
	struct probe *q = (void *)(long)ctx->data_meta;
	void *data = (void *)(long)ctx->data;

	if ((void *)(q + 1) > data || q->magic != PROBE_MAGIC)
		return 0;
	return q;
}

/* Cuts a frame, or adds to it. Pointers into it are void then. */
static __always_inline bool set_length(struct xdp_md *ctx, __u32 want)
{
	long len = (void *)(long)ctx->data_end - (void *)(long)ctx->data;

	/* else clang narrows it: 32-bit pointer arithmetic, which is prohibited */
	asm volatile("" : "+r"(len));
	return !bpf_xdp_adjust_tail(ctx, (int)(want - len));
}
