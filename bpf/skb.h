/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The context as TCX has it: an skb, of which the first bytes are in sight. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define CTX struct __sk_buff

/* Brings the first bytes of an skb in sight, as far as there are so many. False:
 * they were, or cannot be. Pointers into it are void where it is true. */
static __always_inline bool pull(struct __sk_buff *skb, __u32 want)
{
	long have = (void *)(long)skb->data_end - (void *)(long)skb->data;

	asm volatile("" : "+r"(have)); /* see set_length() in xdp.h */
	if (have >= want || have >= skb->len)
		return false;
	return !bpf_skb_pull_data(skb, want < skb->len ? want : skb->len);
}

static __always_inline bool set_length(struct __sk_buff *skb, __u32 want)
{
	return !bpf_skb_change_tail(skb, want, 0);
}
