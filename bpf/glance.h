/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What most packets are, at a glance: TCP in IPv4 without tags, options or
 * fragments. Those to another port, and a stranger's SYN to a port that refuses in
 * silence, end here; parse() and judge() say the same of them in three times as
 * many instructions. The others are judge()'s, but need no parse() any more. */
#pragma once
#include "config.h"
#include "index.h"
#include "parse.h"
#include "record.h"

#define IPV4_PLAIN 0x45 /* version 4, a header of 20 bytes */
#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define FLAG_ACK 0x10

enum glance {
	GLANCE_NONE,	 /* not plain: look closer */
	GLANCE_PLAIN,	 /* the packet is filled in */
	GLANCE_OTHER,	 /* for a port that is not protected */
	GLANCE_STRANGER, /* the outcome is filled in; of the packet, source and port */
};

/* The three headers in one: a single check against the frame's end. */
struct plain {
	__u8 macs[2 * ETH_ALEN];
	__be16 proto;
	__u8 version;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 source;
	__be32 dest;
	struct ports ports;
	__be32 seq;
	__be32 ack;
	__u8 doff;
	__u8 flags;
	__be16 window;
	__be32 sum;
} __attribute__((packed, aligned(2)));
_Static_assert(sizeof(struct plain) == ETH_HLEN + 20 + 20, "plain");

static __always_inline bool is_plain(const struct plain *f)
{
	return f && f->proto == bpf_htons(ETH_P_IP) && f->version == IPV4_PLAIN &&
	       f->protocol == IPPROTO_TCP && !(f->fragment & bpf_htons(IP_OFFSET_MASK | IP_MORE));
}

static __always_inline bool is_attempt(const struct plain *f)
{
	return (f->flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

/* What parse() would have said. */
static __always_inline void fill_packet(struct packet *p, const struct plain *f)
{
	__u32 len = bpf_ntohs(f->len) - 20;

	*p = (struct packet) {
		.source = {0, 0, bpf_htonl(0xffff), f->source},
		.port = f->ports.dest,
		.tcp = true,
		.flags = true,
		.syn = is_attempt(f),
		.rst = f->flags & FLAG_RST,
		.data = len > (f->doff >> 4) * 4,
		.proto = f->proto,
		.l3 = ETH_HLEN,
		.off = ETH_HLEN + 20,
		.len = len,
	};
}

/* Does the port refuse whom no entry covers in silence, and is there an index? */
static __always_inline bool is_silent(const struct config *cfg, __u32 current, __u32 slot)
{
	const struct port *port = &cfg->ports[slot & (MAX_PORTS - 1)];

	return !port->observe && !port->reset && INDEX(current) &&
	       cfg->defaults[slot & (MAX_PORTS - 1)].decision == DECISION_DROP;
}

static __always_inline enum glance fill_stranger(struct packet *p, struct outcome *o,
						 const struct plain *f, __u32 slot)
{
	o->slot = slot;
	o->reason = REASON_NO_ENTRY;
	o->decision = DECISION_DROP;
	p->source[0] = 0;
	p->source[1] = 0;
	p->source[2] = bpf_htonl(0xffff);
	p->source[3] = f->source;
	p->port = f->ports.dest;
	return GLANCE_STRANGER;
}

static __always_inline enum glance glance(CTX *ctx, const struct config *cfg, __u32 current,
					  struct packet *p, struct outcome *o)
{
	struct cursor c = start(ctx, 0);
	struct plain *f = TAKE(&c, struct plain);
	__u32 slot, says = 0;
	bool ask, asked;

	if (!is_plain(f))
		return GLANCE_NONE;
	slot = find_slot(cfg, f->ports.dest);
	if (slot >= MAX_PORTS)
		return GLANCE_OTHER;
	ask = is_attempt(f) && is_silent(cfg, current, slot);
	if (ask && !is_touched4(current, f->source))
		return fill_stranger(p, o, f, slot);
	asked = ask && ask_index4(INDEX(current) - 1, f->source, &says);
	if (asked && !says)
		return fill_stranger(p, o, f, slot);
	fill_packet(p, f);
	p->asked = asked;
	p->says = says;
	return GLANCE_PLAIN;
}
