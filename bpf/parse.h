/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From the frame to the TCP header, as far as Linux itself would go. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* Linux strips stacked priority tags one by one (net/core/dev.c, another_round)
 * and sets no bound on extension headers; these are ours. Beyond them a packet
 * is REASON_HEADERS. */
#define MAX_TAGS 4
#define MAX_EXTENSIONS 8

#define IP_OFFSET_MASK 0x1fff
#define IP_MORE 0x2000
#define FRAG6_OFFSET_MASK 0xfff8
#define FRAG6_MORE 0x0001
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTH 51
#define NEXT_DESTINATION 60

/* Where the parser is. An offset and not a pointer: the verifier forgets what
 * it knew of an offset that a function wrote through memory, and so looks once,
 * not once a path, at what follows (862,000 instructions against 15,000). */
#define OFFSET_MASK 0x7fff /* no chain within the bounds comes near it */

struct cursor {
	void *data;
	void *end;
	__u32 off;
};

/* What is known of a packet. Without a reason and with tcp unset it is none of
 * the filter's business. */
struct packet {
	__be32 source[4]; /* IPv4 as ::ffff:a.b.c.d */
	__be16 port;	  /* destination */
	bool v6;
	bool tcp;      /* port is known */
	bool fragment; /* the first of several */
	bool later;    /* a fragment that is not the first */
	bool flags;    /* what follows is known */
	bool syn;      /* SYN set and ACK clear: RFC 9293 3.10.7.2, an attempt */
	bool rst;
	bool data;    /* more than a header */
	__be16 proto; /* the header at off: an ethertype */
	__u8 next;    /* the header at off: an IPv6 next header */
	__u32 off;    /* at last the TCP header */
	__u32 l3;     /* the IP header */
	__u32 len;    /* of the TCP segment, as the IP header says */
	__u32 tags;   /* VLAN tags that the stack has taken out of the frame */
	bool asked;   /* says holds the index's answer for the source: glance() */
	__u32 says;
};

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

/* The first 8 bytes of an extension header; of a fragment header, all. */
struct extension {
	__u8 next;
	__u8 len;
	__be16 fragment; /* offset and more-fragments, RFC 8200 4.5 */
	__u8 pad[4];
};

/* The bytes of a TCP header that an 8-byte first fragment still shows. */
struct ports {
	__be16 source;
	__be16 dest;
};

/* The header at the cursor, and past it; null where the frame ends before. */
#define TAKE(c, type)                                                                              \
	({                                                                                         \
		type *hdr_ = (c)->data + ((c)->off & OFFSET_MASK);                                 \
		(c)->off += sizeof(type);                                                          \
		(void *)(hdr_ + 1) <= (c)->end ? hdr_ : (type *)0;                                 \
	})

static __always_inline struct cursor start(CTX *ctx, __u32 off)
{
	return (struct cursor) {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.off = off,
	};
}

static __always_inline bool is_tag(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

/* Past the tags at p->off. False: the frame ends in them. */
__noinline bool parse_tags(CTX *ctx, struct packet *p)
{
	struct cursor c;
	struct vlan_tag *tag;

	if (!p)
		return false;
	c = start(ctx, p->off);
	for (__u32 i = p->tags; i < MAX_TAGS && is_tag(p->proto); i++) {
		tag = TAKE(&c, struct vlan_tag);
		if (!tag)
			return false;
		p->proto = tag->proto;
	}
	p->off = c.off;
	return true;
}

/* False: the frame holds no IP, or hides it (*why is set). */
static __always_inline bool parse_ethernet(CTX *ctx, struct packet *p, enum reason *why)
{
	struct cursor c = start(ctx, 0);
	struct ethhdr *eth = TAKE(&c, struct ethhdr);

	if (!eth)
		return false;
	p->proto = eth->h_proto;
	p->off = c.off;
	if (is_tag(p->proto) && !parse_tags(ctx, p))
		return false;
	if (is_tag(p->proto)) {
		*why = REASON_HEADERS;
		return false;
	}
	p->v6 = p->proto == bpf_htons(ETH_P_IPV6);
	return p->v6 || p->proto == bpf_htons(ETH_P_IP);
}

/* False: not TCP, or a later fragment. Those pass: a datagram is put together
 * only with its first fragment (RFC 1858 3.2), and that one shows its port. */
static __always_inline bool parse_ipv4(CTX *ctx, struct packet *p)
{
	struct cursor c = start(ctx, p->off);
	struct iphdr *ip = TAKE(&c, struct iphdr);
	__u32 len;
	__u16 frag;

	if (!ip || ip->protocol != IPPROTO_TCP)
		return false;
	len = ip->ihl * 4;
	if (len < sizeof(*ip))
		return false; /* Linux drops it: ip_rcv_core */
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET_MASK)
		return false;
	p->fragment = frag & IP_MORE;
	p->source[2] = bpf_htonl(0xffff);
	p->source[3] = ip->saddr;
	p->l3 = p->off;
	p->off += len;
	p->len = bpf_ntohs(ip->tot_len) - len;
	return true;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTH || next == NEXT_DESTINATION;
}

/* Bytes of an extension header beyond the first 8. */
static __always_inline __u32 rest_of(__u8 kind, __u8 len)
{
	if (kind == NEXT_FRAGMENT)
		return 0;
	if (kind == NEXT_AUTH) /* RFC 4302 2.2: in words of 4, less 2 */
		return len * 4;
	return len * 8; /* RFC 8200 4.3: in units of 8, without the first */
}

/* Past the extension headers at p->off, or to a later fragment. False: the
 * frame ends in them. */
__noinline bool parse_extensions(CTX *ctx, struct packet *p)
{
	struct cursor c;
	struct extension *ext;
	__u8 kind;

	if (!p)
		return false;
	c = start(ctx, p->off);
	for (int i = 0; i < MAX_EXTENSIONS && is_extension(p->next); i++) {
		ext = TAKE(&c, struct extension);
		if (!ext)
			return false;
		kind = p->next;
		p->next = ext->next;
		c.off = (c.off + rest_of(kind, ext->len)) & OFFSET_MASK;
		if (kind != NEXT_FRAGMENT)
			continue;
		if (ext->fragment & bpf_htons(FRAG6_OFFSET_MASK)) {
			p->later = true;
			return true;
		}
		/* offset 0 without more is an atomic fragment, a whole packet: RFC 6946 */
		if (ext->fragment & bpf_htons(FRAG6_MORE))
			p->fragment = true;
	}
	p->off = c.off;
	return true;
}

/* False: not TCP, a later fragment, or hidden (*why is set). */
static __always_inline bool parse_ipv6(CTX *ctx, struct packet *p, enum reason *why)
{
	struct cursor c = start(ctx, p->off);
	struct ipv6hdr *ip = TAKE(&c, struct ipv6hdr);

	if (!ip)
		return false;
	__builtin_memcpy(p->source, &ip->saddr, sizeof(p->source));
	p->next = ip->nexthdr;
	p->l3 = p->off;
	p->off = c.off;
	p->len = bpf_ntohs(ip->payload_len);
	if (!is_extension(p->next))
		return p->next == IPPROTO_TCP;
	if (!parse_extensions(ctx, p)) {
		*why = REASON_TRUNCATED;
		return false;
	}
	if (p->later)
		return false;
	if (is_extension(p->next)) {
		*why = REASON_HEADERS;
		return false;
	}
	p->len -= p->off - c.off;
	return p->next == IPPROTO_TCP;
}

/* Sets port, and flags where they are in sight. */
static __always_inline void parse_tcp(CTX *ctx, struct packet *p, enum reason *why)
{
	struct cursor c = start(ctx, p->off);
	struct ports *ports = TAKE(&c, struct ports);
	struct tcphdr *tcp;

	if (!ports) {
		*why = REASON_TRUNCATED;
		return;
	}
	p->port = ports->dest;
	p->tcp = true;
	c.off = p->off;
	tcp = TAKE(&c, struct tcphdr);
	if (!tcp)
		return;
	p->syn = tcp->syn && !tcp->ack;
	p->rst = tcp->rst;
	p->data = p->len > tcp->doff * 4;
	p->flags = true;
}

static __always_inline void parse(CTX *ctx, struct packet *p, enum reason *why)
{
	if (!parse_ethernet(ctx, p, why))
		return;
	if (p->v6 ? parse_ipv6(ctx, p, why) : parse_ipv4(ctx, p))
		parse_tcp(ctx, p, why);
}
