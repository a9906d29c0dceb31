// clang-format off
//go:build ignore
// clang-format on

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The benchmark's generator: a test run with live frames makes it send SYNs to
 * port 25 out of an interface, each from the next address of a list. It is no
 * part of the filter. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SOURCES (1 << 22) /* addresses in all; a power of two, like every list of it */
#define BURST 64	  /* frames that a paced generator sends at once, a batch */

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

/* The sources' IPv4 addresses, in the low half each: an array's elements are
 * multiples of 8 bytes. Written by Go before a run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, __u64);
} sources SEC(".maps");

/* Of one run, set by Go before it; one run at a time. */
__u32 ifindex;	/* where to; 0: nowhere, the generator alone */
__u32 first;	/* of the list in `sources` */
__u32 mask;	/* the list's length less one */
__u32 ip_sum;	/* ones' complement sum of the IPv4 header without the source */
__u32 tcp_sum;	/* of the pseudo header and the TCP header, likewise without */
__u64 interval; /* ns between frames; 0: as fast as it goes */

/* Progress, kept from run to run. */
__u32 position;
__u64 sent;

static __u64 due;
static __u32 turn;
static int sending;

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Whole batches go or stay, so that each burst is flushed once. A generator that
 * lags does not catch up by more than one. */
static __always_inline int may_send(void)
{
	__u64 now;

	if (!interval)
		return 1;
	if (turn++ % BURST)
		return sending;
	now = bpf_ktime_get_ns();
	sending = now >= due;
	if (sending)
		due = (now - due > BURST * interval ? now : due) + BURST * interval;
	return sending;
}

/* The frame keeps what an earlier packet left in it, so every field that
 * changes is written anew, from sums that Go has made once. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 at = first + (position & mask), port, seq, sum;
	__u64 *entry;
	__be32 source;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end || !may_send())
		return XDP_DROP;
	entry = bpf_map_lookup_elem(&sources, &at);
	if (!entry)
		return XDP_ABORTED;
	source = *entry;
	position++;
	seq = position * 0x9e3779b1u;
	port = 1024 + (seq >> 17);
	sum = (source & 0xffff) + (source >> 16);
	f->ip.saddr = source;
	f->ip.check = fold(ip_sum + sum);
	f->tcp.source = port;
	f->tcp.seq = seq;
	f->tcp.check = fold(tcp_sum + sum + port + (seq & 0xffff) + (seq >> 16));
	sent++;
	return ifindex ? bpf_redirect(ifindex, 0) : XDP_DROP;
}

/* The floor: the least that a filter in XDP can do. */
SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* The least that a filter can do which lets one client in: 198.18.0.2. */
SEC("xdp")
int ideal(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (f->eth.h_proto == bpf_htons(ETH_P_IP) && f->ip.saddr != bpf_htonl(0xc6120002))
		return XDP_DROP;
	return XDP_PASS;
}

/* What a filter that lets everything pass would cost. */
SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
