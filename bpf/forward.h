/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where the server is not a socket of this host, there is no socket table to ask:
 * the wire is the ledger. The server's first sequence number is learnt from its
 * SYN-ACK on the way out (egress.h); the segment that acknowledges it takes the
 * slot, which comes back once both FINs are acknowledged or at a RST.
 *
 * Invariant: usage.open = passages that are open or closing, for such ports. */
#pragma once
#include "cap.h"
#include "gate.h"
#include "kernel.h"

#define MILLISECOND 1000000ULL
/* The filter sees an end before the server does, and CPUs overtake each other:
 * the slot is held a little longer. The server is to be nearer than this. */
#define HOLD_NS (200 * MILLISECOND)
#define SWEEP_PASSAGES_NS (250 * MILLISECOND)
/* As long as TIME_WAIT: until then the server may answer what comes late. */
#define LINGER_NS (60000 * MILLISECOND)
#define LINGER_SHORT_NS (2000 * MILLISECOND) /* from half full on */

/* How long a connection may be silent before its slot comes back; the loader may
 * set another. The longest that SMTP waits is 10 minutes (RFC 5321 4.5.3.2.6). */
volatile const __u64 passage_idle_ns = 900000 * MILLISECOND;

/* A passage's flags. */
#define PASSAGE_CLIENT_FIN 1
#define PASSAGE_SERVER_FIN 2
#define PASSAGE_CLIENT_ENDED 4 /* its FIN is acknowledged */
#define PASSAGE_SERVER_ENDED 8
#define PASSAGE_AGAIN 16 /* the server has answered another SYN */
#define PASSAGE_ENDED (PASSAGE_CLIENT_ENDED | PASSAGE_SERVER_ENDED)

/* What a segment says, in host order. */
struct segment {
	__u32 seq;
	__u32 next; /* behind its data and FIN */
	__u32 acked;
	bool syn;
	bool ack;
	bool fin;
	bool rst;
};

/* Further away is another incarnation of the flow: it shall change nothing. */
#define NEAR (1U << 20)
static __always_inline bool is_near(__u32 seq, __u32 next)
{
	return seq - next + NEAR < 2 * NEAR;
}

static __always_inline bool reaches(__u32 seq, __u32 than)
{
	return (__s32)(seq - than) >= 0;
}

/* Are the answers that leave by this interface seen? */
static __always_inline bool is_watched(__u32 ifindex)
{
	return bpf_map_lookup_elem(&egresses, &ifindex) != 0;
}

/* Not yet for as long as a connection may be silent: there may be some that were
 * open before. */
static __always_inline bool is_new_watch(__u32 ifindex)
{
	__u64 *since = bpf_map_lookup_elem(&egresses, &ifindex);

	return !since || bpf_ktime_get_coarse_ns() < *since + passage_idle_ns;
}

static __always_inline void fill_segment(struct segment *g, const struct tcphdr *tcp, __u32 len)
{
	__u32 header = tcp->doff * 4;

	g->seq = bpf_ntohl(tcp->seq);
	g->acked = bpf_ntohl(tcp->ack_seq);
	g->syn = tcp->syn;
	g->ack = tcp->ack;
	g->fin = tcp->fin;
	g->rst = tcp->rst;
	g->next = g->seq + (len > header ? len - header : 0) + g->fin;
}

static __always_inline bool swap_state(struct passage *c, __u32 from, __u32 to)
{
	return __sync_val_compare_and_swap(&c->state, from, to) == from;
}

static __always_inline bool holds_slot(const struct passage *c)
{
	__u32 state = LOAD(c->state);

	return state == PASSAGE_OPEN || state == PASSAGE_CLOSING;
}

static __always_inline void touch(struct passage *c)
{
	if (LOAD(c->state) == PASSAGE_OPEN)
		c->last = bpf_ktime_get_coarse_ns();
}

static __always_inline void end_passage(struct passage *c)
{
	if (LOAD(c->state) != PASSAGE_OPEN)
		return;
	c->last = bpf_ktime_get_coarse_ns();
	swap_state(c, PASSAGE_OPEN, PASSAGE_CLOSING);
}

/* One side's FIN is acknowledged: who finds both so ends it. */
static __always_inline void end_side(struct passage *c, __u32 side)
{
	__u32 flags = __sync_fetch_and_or(&c->flags, side) | side;

	if ((flags & PASSAGE_ENDED) == PASSAGE_ENDED)
		end_passage(c);
}

/* The slot of a count that was begun anew since is none. */
static __always_inline void free_slot(const struct source *s, __u32 epoch)
{
	__u32 current;
	const struct config *cfg = current_config(&current);

	if (cfg && cfg->epoch == epoch)
		release(s);
}

/* Does a client's RST end the connection for its server? At the very number that
 * it waits for (RFC 5961 3.2): what it has acknowledged, or the end of what passed
 * here; and at that of the client's FIN, which Linux takes, too (tcp_reset_check). */
static __always_inline bool is_reset(const struct passage *c, const struct segment *g)
{
	return g->seq == c->server_ack || g->seq == c->client_next ||
	       (LOAD(c->flags) & PASSAGE_CLIENT_FIN && g->seq + 1 == c->client_fin);
}

static __always_inline void note_client(struct passage *c, const struct segment *g)
{
	if (!is_near(g->seq, c->client_next))
		return;
	if (g->rst) {
		if (is_reset(c, g))
			end_passage(c);
		return;
	}
	if (reaches(g->next, c->client_next))
		c->client_next = g->next;
	touch(c);
	if (g->fin) {
		c->client_fin = g->next;
		__sync_fetch_and_or(&c->flags, PASSAGE_CLIENT_FIN);
	}
	if (LOAD(c->flags) & PASSAGE_SERVER_FIN && g->ack && reaches(g->acked, c->server_fin))
		end_side(c, PASSAGE_SERVER_ENDED);
}

static __always_inline bool is_proof(const struct segment *g, const struct handshake *h)
{
	return g->ack && !g->rst && (g->acked == h->isn + 1 || g->acked == h->earlier + 1);
}

/* What a client's segment is. Those of a known connection are noted. */
__noinline enum birth follow_client(CTX *ctx, const struct packet *p, struct flow *f,
				    struct segment *g)
{
	struct handshake *h = 0;
	struct passage *c;
	struct tcphdr *tcp;
	struct cursor at;
	struct flow flow;

	if (!p || !f || !g || !read_flow(ctx, p, f))
		return BIRTH_NONE;
	at = start(ctx, p->off);
	tcp = TAKE(&at, struct tcphdr);
	if (!tcp)
		return BIRTH_NONE;
	fill_segment(g, tcp, p->len);
	flow = *f;
	c = bpf_map_lookup_elem(&passages, &flow);
	if (c && LOAD(c->state) == PASSAGE_DEAD) /* it has no slot any more */
		c = 0;
	if (!c || LOAD(c->flags) || LOAD(c->state) != PASSAGE_OPEN)
		h = bpf_map_lookup_elem(&handshakes, &flow);
	if (h && is_proof(g, h) && !(c && g->acked == c->server_first))
		return BIRTH_PROVED;
	if (c) {
		note_client(c, g);
		return BIRTH_NONE;
	}
	if (g->rst)
		return BIRTH_NONE;
	if (h)
		return BIRTH_STRAY;
	return is_new_watch(ctx->ingress_ifindex) ? BIRTH_NONE : BIRTH_UNKNOWN;
}

static __always_inline void begin_passage(struct passage *c, const struct segment *g)
{
	c->flags = 0;
	c->client_next = g->seq;
	c->server_first = g->acked;
	c->server_next = g->acked;
	c->server_ack = g->seq;
	c->last = bpf_ktime_get_coarse_ns();
}

/* The same flow once more: the server has answered a SYN, so what was there
 * before is over for it. An open passage keeps its slot. */
static __always_inline enum reason renew_passage(const struct config *cfg, const struct source *s,
						 __u32 cap, struct passage *c)
{
	enum reason over;
	struct usage *u;

	if (LOAD(c->state) == PASSAGE_OPEN || swap_state(c, PASSAGE_CLOSING, PASSAGE_OPEN))
		return 0;
	over = reserve(s, cap, &u);
	if (over)
		return over;
	c->source = *s;
	c->epoch = cfg->epoch;
	if (swap_state(c, PASSAGE_OVER, PASSAGE_OPEN)) {
		__sync_fetch_and_add(&u->admitted, 1);
		return 0;
	}
	__sync_fetch_and_add(&u->open, -1ULL);
	/* another CPU was first; or it is being removed, and the client comes again */
	return LOAD(c->state) == PASSAGE_OPEN ? 0 : REASON_STRAY;
}

/* Takes a slot for a flow that has none. cap 0: whatever the source has. */
static __always_inline enum reason open_passage(const struct config *cfg, const struct source *s,
						__u32 cap, const struct flow *f,
						const struct segment *g)
{
	struct passage fresh = {};
	enum reason over;
	struct usage *u;
	long err;

	over = reserve(s, cap, &u);
	if (over)
		return over;
	begin_passage(&fresh, g);
	fresh.source = *s;
	fresh.state = PASSAGE_OPEN;
	fresh.epoch = cfg->epoch;
	err = bpf_map_update_elem(&passages, f, &fresh, BPF_NOEXIST);
	if (err) { /* another CPU was first, or there is no room */
		__sync_fetch_and_add(&u->open, -1ULL);
		return err == -EEXIST ? 0 : REASON_LEDGER_FULL;
	}
	__sync_fetch_and_add(&u->admitted, 1);
	return 0;
}

/* Charges a client's flow to its source, once: as admit(), by the wire. Of what
 * nobody saw begin only this is known: nobody may come beyond his cap that way.
 * It is counted by its server's data. */
__noinline enum reason admit_passage(const struct config *cfg, const struct entry *e,
				     const struct source *s, const struct flow *f,
				     const struct segment *g)
{
	struct source source; /* copies: to Linux 6.1 an argument is no map key */
	struct handshake *h;
	struct passage *c;
	enum reason over;
	struct flow flow;

	if (!cfg || !e || !s || !f || !g)
		return REASON_INTERNAL;
	source = *s;
	flow = *f;
	h = bpf_map_lookup_elem(&handshakes, &flow);
	if (!h || !is_proof(g, h))
		return is_full(e, &source) ? REASON_CONNECTIONS : 0;
	c = bpf_map_lookup_elem(&passages, &flow);
	if (c && c->server_first == g->acked) /* another CPU was first */
		return 0;
	if (!(c && holds_slot(c)) && is_full(e, &source))
		return REASON_CONNECTIONS;
	over = cap_rate(cfg, e, &source);
	if (over == REASON_RATE)
		return over;
	over = c ? renew_passage(cfg, &source, e->conns, c)
		 : open_passage(cfg, &source, e->conns, &flow, g);
	if (over)
		return over;
	if (c)
		begin_passage(c, g);
	else
		c = bpf_map_lookup_elem(&passages, &flow);
	if (c)
		note_client(c, g);
	bpf_map_delete_elem(&handshakes, &flow);
	return 0;
}
