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

struct cursor {
	void *pos;
	void *end;
};

/* What is known of a packet. Without a reason and with tcp unset it is none of
 * the filter's business. */
struct packet {
	__be32 source[4]; /* IPv4 in source[0] */
	__be16 port;	  /* destination */
	bool v6;
	bool tcp;      /* port is known */
	bool fragment; /* the first of several */
	bool syn;      /* SYN set and ACK clear: RFC 9293 3.10.7.2, an attempt */
	bool flags;    /* syn is known */
};

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

struct extension {
	__u8 next;
	__u8 len;
	__u8 pad[6];
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* The bytes of a TCP header that an 8-byte first fragment still shows. */
struct ports {
	__be16 source;
	__be16 dest;
};

#define TAKE(c, hdr)                                                                               \
	({                                                                                         \
		bool ok_ = (c)->pos + sizeof(*(hdr)) <= (c)->end;                                  \
		if (ok_) {                                                                         \
			(hdr) = (c)->pos;                                                          \
			(c)->pos += sizeof(*(hdr));                                                \
		}                                                                                  \
		ok_;                                                                               \
	})

/* False: the frame holds no IP, or hides it (*why is set). */
static __always_inline bool parse_ethernet(struct cursor *c, bool *v6, enum reason *why)
{
	struct ethhdr *eth;
	struct vlan_tag *tag;
	__be16 proto;

	if (!TAKE(c, eth))
		return false;
	proto = eth->h_proto;
	for (int i = 0; i < MAX_TAGS; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (!TAKE(c, tag))
			return false;
		proto = tag->proto;
	}
	if (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD)) {
		*why = REASON_HEADERS;
		return false;
	}
	*v6 = proto == bpf_htons(ETH_P_IPV6);
	return *v6 || proto == bpf_htons(ETH_P_IP);
}

/* False: not TCP, or a later fragment. Those pass: a datagram is put together
 * only with its first fragment (RFC 1858 3.2), and that one shows its port. */
static __always_inline bool parse_ipv4(struct cursor *c, struct packet *p)
{
	struct iphdr *ip;
	__u16 frag;
	__u32 len;

	if (!TAKE(c, ip) || ip->protocol != IPPROTO_TCP)
		return false;
	len = ip->ihl * 4;
	if (len < sizeof(*ip))
		return false; /* Linux drops it: ip_rcv_core */
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET_MASK)
		return false;
	p->fragment = frag & IP_MORE;
	p->source[0] = ip->saddr;
	c->pos += len - sizeof(*ip);
	return true;
}

/* One extension header. False: it ends the chain. *later: a fragment that is
 * not the first. *cut: the header is not whole. */
static __always_inline bool parse_extension(struct cursor *c, struct packet *p, __u8 *next,
					    bool *later, bool *cut)
{
	struct extension *ext;
	struct fragment_header *frag;

	switch (*next) {
	case NEXT_FRAGMENT:
		if (!TAKE(c, frag)) {
			*cut = true;
			return false;
		}
		*next = frag->next;
		if (frag->offset & bpf_htons(FRAG6_OFFSET_MASK)) {
			*later = true;
			return false;
		}
		/* offset 0 without more is an atomic fragment, a whole packet: RFC 6946 */
		if (frag->offset & bpf_htons(FRAG6_MORE))
			p->fragment = true;
		return true;
	case NEXT_HOP_BY_HOP:
	case NEXT_ROUTING:
	case NEXT_DESTINATION:
	case NEXT_AUTH:
		if (!TAKE(c, ext)) {
			*cut = true;
			return false;
		}
		if (*next == NEXT_AUTH) /* RFC 4302 2.2: in words of 4, less 2 */
			c->pos += (ext->len + 2) * 4 - (int)sizeof(*ext);
		else /* RFC 8200 4.3: in units of 8, without the first */
			c->pos += ext->len * 8;
		*next = ext->next;
		return true;
	}
	return false;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTH || next == NEXT_DESTINATION;
}

/* False: not TCP, a later fragment, or hidden (*why is set). */
static __always_inline bool parse_ipv6(struct cursor *c, struct packet *p, enum reason *why)
{
	struct ipv6hdr *ip;
	bool later = false, cut = false;
	__u8 next;

	if (!TAKE(c, ip))
		return false;
	__builtin_memcpy(p->source, &ip->saddr, sizeof(p->source));
	p->v6 = true;
	next = ip->nexthdr;
	for (int i = 0; i < MAX_EXTENSIONS; i++)
		if (!parse_extension(c, p, &next, &later, &cut))
			break;
	if (later)
		return false;
	if (cut) {
		*why = REASON_TRUNCATED;
		return false;
	}
	if (is_extension(next)) {
		*why = REASON_HEADERS;
		return false;
	}
	return next == IPPROTO_TCP;
}

/* Sets port, and flags where they are in sight. */
static __always_inline void parse_tcp(struct cursor *c, struct packet *p, enum reason *why)
{
	struct tcphdr *tcp = c->pos;
	struct ports *ports = c->pos;

	if ((void *)(ports + 1) > c->end) {
		*why = REASON_TRUNCATED;
		return;
	}
	p->port = ports->dest;
	p->tcp = true;
	if ((void *)(tcp + 1) > c->end)
		return;
	p->syn = tcp->syn && !tcp->ack;
	p->flags = true;
}

static __always_inline void parse(struct xdp_md *ctx, struct packet *p, enum reason *why)
{
	struct cursor c = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	bool v6 = false;

	if (!parse_ethernet(&c, &v6, why))
		return;
	if (v6 ? parse_ipv6(&c, p, why) : parse_ipv4(&c, p))
		parse_tcp(&c, p, why);
}
