/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Turning a segment into the RST that answers it (RFC 9293 3.10.7). */
#pragma once
#include "config.h"
#include "maps.h"
#include "parse.h"
#include "record.h"

#define RESET_TTL 64
/* Per CPU and WINDOW (record.h): 1,000 to 4,000 a second. Beyond it, silence:
 * nobody shall use the edge to send RSTs to others. Who has proved that the
 * address is his gets his own in any case. */
#define WINDOW_RESETS 512

struct pseudo4 {
	__be32 saddr;
	__be32 daddr;
	__be32 proto_len;
};

struct pseudo6 {
	__be32 saddr[4];
	__be32 daddr[4];
	__be32 len;
	__be32 next;
};

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* What the answer takes of the segment. */
struct answer {
	__be32 saddr[4]; /* of the segment; IPv4 in [3] */
	__be32 daddr[4];
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	bool with_ack;
};

static __always_inline bool read_answer(CTX *ctx, const struct packet *p, struct answer *a)
{
	struct cursor c = start(ctx, p->off);
	struct tcphdr *tcp = TAKE(&c, struct tcphdr);

	if (!tcp)
		return false;
	a->sport = tcp->source;
	a->dport = tcp->dest;
	a->with_ack = !tcp->ack;
	if (tcp->ack)
		a->seq = tcp->ack_seq;
	else
		a->ack = bpf_htonl(bpf_ntohl(tcp->seq) + tcp->syn + tcp->fin + p->len -
				   tcp->doff * 4);
	c.off = p->l3;
	if (p->v6) {
		struct ipv6hdr *ip = TAKE(&c, struct ipv6hdr);

		if (!ip)
			return false;
		__builtin_memcpy(a->saddr, &ip->saddr, sizeof(a->saddr));
		__builtin_memcpy(a->daddr, &ip->daddr, sizeof(a->daddr));
	} else {
		struct iphdr *ip = TAKE(&c, struct iphdr);

		if (!ip)
			return false;
		a->saddr[3] = ip->saddr;
		a->daddr[3] = ip->daddr;
	}
	return true;
}

static __always_inline void write_tcp(struct tcphdr *tcp, const struct answer *a)
{
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = a->dport;
	tcp->dest = a->sport;
	tcp->seq = a->seq;
	tcp->ack_seq = a->ack;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	tcp->ack = a->with_ack;
}

static __always_inline bool write_ipv4(struct cursor *c, const struct answer *a)
{
	struct pseudo4 ps = {
		.saddr = a->daddr[3],
		.daddr = a->saddr[3],
		.proto_len = bpf_htonl((IPPROTO_TCP << 16) | sizeof(struct tcphdr)),
	};
	struct iphdr *ip = TAKE(c, struct iphdr);
	struct tcphdr *tcp = TAKE(c, struct tcphdr);

	if (!ip || !tcp)
		return false;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*tcp));
	ip->ttl = RESET_TTL;
	ip->protocol = IPPROTO_TCP;
	ip->saddr = a->daddr[3];
	ip->daddr = a->saddr[3];
	ip->check = fold(bpf_csum_diff(0, 0, (void *)ip, sizeof(*ip), 0));
	write_tcp(tcp, a);
	tcp->check = fold(bpf_csum_diff(0, 0, (void *)tcp, sizeof(*tcp),
					bpf_csum_diff(0, 0, (void *)&ps, sizeof(ps), 0)));
	return true;
}

static __always_inline bool write_ipv6(struct cursor *c, const struct answer *a)
{
	struct pseudo6 ps = {
		.len = bpf_htonl(sizeof(struct tcphdr)),
		.next = bpf_htonl(IPPROTO_TCP),
	};
	struct ipv6hdr *ip = TAKE(c, struct ipv6hdr);
	struct tcphdr *tcp = TAKE(c, struct tcphdr);

	if (!ip || !tcp)
		return false;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(sizeof(*tcp));
	ip->nexthdr = IPPROTO_TCP;
	ip->hop_limit = RESET_TTL;
	__builtin_memcpy(&ip->saddr, a->daddr, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, a->saddr, sizeof(ip->daddr));
	__builtin_memcpy(ps.saddr, a->daddr, sizeof(ps.saddr));
	__builtin_memcpy(ps.daddr, a->saddr, sizeof(ps.daddr));
	write_tcp(tcp, a);
	tcp->check = fold(bpf_csum_diff(0, 0, (void *)tcp, sizeof(*tcp),
					bpf_csum_diff(0, 0, (void *)&ps, sizeof(ps), 0)));
	return true;
}

/* Puts the RST in the frame's place, whose length set_length() changes. */
__noinline bool write_reset(CTX *ctx, const struct packet *p)
{
	struct answer a = {};
	struct cursor c;
	struct ethhdr *eth;
	__u8 mac[ETH_ALEN];

	if (!p || !read_answer(ctx, p, &a))
		return false;
	if (!set_length(ctx, (p->l3 & OFFSET_MASK) + (p->v6 ? 40 : 20) + sizeof(struct tcphdr)))
		return false;
	c = start(ctx, 0);
	eth = TAKE(&c, struct ethhdr);
	if (!eth)
		return false;
	__builtin_memcpy(mac, eth->h_dest, sizeof(mac));
	__builtin_memcpy(eth->h_dest, eth->h_source, sizeof(mac));
	__builtin_memcpy(eth->h_source, mac, sizeof(mac));
	c.off = p->l3;
	return p->v6 ? write_ipv6(&c, &a) : write_ipv4(&c, &a);
}

static __always_inline bool may_reset(void)
{
	__u32 zero = 0;
	struct budget *b = bpf_map_lookup_elem(&budget, &zero);

	if (!b || b->resets >= WINDOW_RESETS)
		return false;
	b->resets++;
	return true;
}

/* Whether a packet that is dropped is answered: where the port is set to it, and
 * to a client that has proved its address and thinks itself connected. */
static __always_inline bool wants_reset(const struct config *cfg, const struct packet *p,
					const struct outcome *o)
{
	if (o->slot >= MAX_PORTS || !p->flags || p->rst || p->fragment)
		return false;
	return o->proved || (cfg->ports[o->slot & (MAX_PORTS - 1)].reset && may_reset());
}
