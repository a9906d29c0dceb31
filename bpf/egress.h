/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a server that is not a socket of this host answers: read on the way out,
 * and never touched. */
#pragma once
#include "forward.h"
#include "ledger.h"

#define EGRESS_TAGS 2

/* The headers are copied: those of a forwarded packet need not be linear. */
static __always_inline bool load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return !bpf_skb_load_bytes(skb, off, to, len);
}

static __always_inline bool load_proto(struct __sk_buff *skb, __u32 *off, __be16 *proto)
{
	struct vlan_tag tag;

	if (!load(skb, offsetof(struct ethhdr, h_proto), proto, sizeof(*proto)))
		return false;
	*off = sizeof(struct ethhdr);
	for (int i = 0; i < EGRESS_TAGS && is_tag(*proto); i++) {
		if (!load(skb, *off, &tag, sizeof(tag)))
			return false;
		*off += sizeof(tag);
		*proto = tag.proto;
	}
	return true;
}

/* A length of 0 is that of a packet too big for its field (BIG TCP). */
static __always_inline bool load_ipv4(struct __sk_buff *skb, __u32 *off, struct flow *f, __u32 *len)
{
	struct iphdr ip;
	__u32 total;

	if (!load(skb, *off, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP ||
	    ip.frag_off & bpf_htons(IP_OFFSET_MASK))
		return false;
	f->saddr[2] = f->daddr[2] = bpf_htonl(0xffff);
	f->saddr[3] = ip.daddr;
	f->daddr[3] = ip.saddr;
	total = ip.tot_len ? bpf_ntohs(ip.tot_len) : skb->len - *off;
	*len = total - ip.ihl * 4;
	*off += ip.ihl * 4;
	return true;
}

static __always_inline bool load_ipv6(struct __sk_buff *skb, __u32 *off, struct flow *f, __u32 *len)
{
	struct ipv6hdr ip;

	if (!load(skb, *off, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
		return false;
	__builtin_memcpy(f->saddr, &ip.daddr, sizeof(f->saddr));
	__builtin_memcpy(f->daddr, &ip.saddr, sizeof(f->daddr));
	*off += sizeof(ip);
	*len = ip.payload_len ? bpf_ntohs(ip.payload_len) : skb->len - *off;
	return true;
}

/* False: it is not TCP, or its headers are unlike those of any server. */
static __always_inline bool load_segment(struct __sk_buff *skb, struct flow *f, struct segment *g)
{
	struct tcphdr tcp;
	__be16 proto;
	__u32 off, len;

	if (!load_proto(skb, &off, &proto))
		return false;
	if (proto == bpf_htons(ETH_P_IP)) {
		if (!load_ipv4(skb, &off, f, &len))
			return false;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		if (!load_ipv6(skb, &off, f, &len))
			return false;
	} else {
		return false;
	}
	if (!load(skb, off, &tcp, sizeof(tcp)))
		return false;
	f->sport = tcp.dest;
	f->dport = tcp.source;
	fill_segment(g, &tcp, len);
	return true;
}

/* The server answers a SYN: its number is what the client has to acknowledge.
 * That of a connection which is known is said once more, and late. */
static __always_inline void note_answer(const struct flow *f, const struct segment *g)
{
	struct passage *c = bpf_map_lookup_elem(&passages, f);
	struct handshake *was = bpf_map_lookup_elem(&handshakes, f), h = {.isn = g->seq};

	if (c && c->server_first == g->seq + 1)
		return;
	h.earlier = !was ? g->seq : was->isn == g->seq ? was->earlier : was->isn;
	bpf_map_update_elem(&handshakes, f, &h, BPF_ANY);
	if (c)
		__sync_fetch_and_or(&c->flags, PASSAGE_AGAIN);
}

static __always_inline void note_server(struct passage *c, const struct segment *g)
{
	if (!is_near(g->seq, c->server_next))
		return;
	if (g->rst) {
		end_passage(c);
		return;
	}
	if (reaches(g->next, c->server_next))
		c->server_next = g->next;
	if (g->ack && reaches(g->acked, c->server_ack))
		c->server_ack = g->acked;
	touch(c);
	if (g->fin) {
		c->server_fin = g->next;
		__sync_fetch_and_or(&c->flags, PASSAGE_SERVER_FIN);
	}
	if (LOAD(c->flags) & PASSAGE_CLIENT_FIN && g->ack && reaches(g->acked, c->client_fin))
		end_side(c, PASSAGE_CLIENT_ENDED);
}

/* Data of a connection that nobody saw begin: it counts, whatever the cap. A
 * server sends none to who has not proved his address, so no claimed address
 * comes here; and a mere ACK may be TIME_WAIT's. */
static __always_inline void adopt_passage(const struct config *cfg, __u32 current,
					  const struct flow *f, const struct segment *g)
{
	struct segment client = {.seq = g->acked, .acked = g->seq};
	struct source s = {};
	struct passage *c;

	if (g->rst || !g->ack || g->next == g->seq || !find_account(cfg, current, f, &s))
		return;
	if (open_passage(cfg, &s, 0, f, &client))
		return;
	c = bpf_map_lookup_elem(&passages, f);
	if (c)
		note_server(c, g);
}

/* A connection that was thought to be over, and whose server sends data: the RST
 * that ended it here has not reached the server, as one with a wrong checksum or a
 * TTL that ends on the way. It counts again, whatever the cap. */
static __always_inline void revive_passage(const struct config *cfg, struct passage *c,
					   const struct segment *g)
{
	struct source s = c->source;

	if (LOAD(c->state) != PASSAGE_OVER || g->rst || g->next - g->seq <= g->fin ||
	    !is_near(g->seq, c->server_next))
		return;
	c->flags = 0;
	c->last = bpf_ktime_get_coarse_ns();
	renew_passage(cfg, &s, 0, c);
}

static __always_inline void follow_server(struct __sk_buff *skb)
{
	const struct config *cfg;
	struct segment g = {};
	struct flow f = {};
	struct passage *c;
	__u32 current, slot;

	if (!load_segment(skb, &f, &g))
		return;
	cfg = current_config(&current);
	if (!cfg)
		return;
	slot = find_slot(cfg, f.dport);
	if (slot >= MAX_PORTS || !cfg->ports[slot & (MAX_PORTS - 1)].forward)
		return;
	if (g.syn) {
		if (g.ack)
			note_answer(&f, &g);
		return;
	}
	c = bpf_map_lookup_elem(&passages, &f);
	if (c) {
		revive_passage(cfg, c, &g);
		note_server(c, &g);
	} else {
		adopt_passage(cfg, current, &f, &g);
	}
}
