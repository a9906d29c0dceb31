/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What most packets are, at a glance: TCP in IPv4 without tags, options or
 * fragments, to another port, or a stranger's SYN to a port that refuses in
 * silence. parse() and judge() say the same of them in three times as many
 * instructions; whatever is not exactly this is theirs. */
#pragma once
#include "config.h"
#include "index.h"
#include "parse.h"
#include "record.h"

#define IPV4_PLAIN 0x45 /* version 4, a header of 20 bytes */
#define FLAG_SYN 0x02
#define FLAG_ACK 0x10

enum glance {
	GLANCE_NONE, /* look closer */
	GLANCE_OTHER,
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

static __always_inline enum glance glance(CTX *ctx, const struct config *cfg, __u32 current,
					  struct packet *p, struct outcome *o)
{
	struct cursor c = start(ctx, 0);
	struct plain *f = TAKE(&c, struct plain);
	const struct port *port;

	if (!is_plain(f))
		return GLANCE_NONE;
	o->slot = find_slot(cfg, f->ports.dest);
	if (o->slot >= MAX_PORTS)
		return GLANCE_OTHER;
	port = &cfg->ports[o->slot & (MAX_PORTS - 1)];
	if ((f->flags & (FLAG_SYN | FLAG_ACK)) != FLAG_SYN || port->observe || port->reset ||
	    cfg->defaults[o->slot & (MAX_PORTS - 1)].decision != DECISION_DROP || !INDEX(current) ||
	    is_touched4(current, f->source))
		return GLANCE_NONE;
	p->source[0] = 0;
	p->source[1] = 0;
	p->source[2] = bpf_htonl(0xffff);
	p->source[3] = f->source;
	p->port = f->ports.dest;
	o->reason = REASON_NO_ENTRY;
	o->decision = DECISION_DROP;
	return GLANCE_STRANGER;
}
