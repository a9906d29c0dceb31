/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a connection is born: the segment that finishes a handshake takes a
 * slot of its source's cap and uses up its rate, no SYN does. So nobody can use
 * up what a source has by claiming its address.
 *
 * Invariant: usage.open = tokens + sockets with a counted account. */
#pragma once
#include "cap.h"
#include "kernel.h"
#include "match.h"

/* What the kernel knows of a segment's connection. */
enum birth {
	BIRTH_NONE,    /* an open connection, or none at all: not the gate's business */
	BIRTH_PROVED,  /* it finishes a handshake that the kernel remembers */
	BIRTH_COOKIE,  /* it finishes one of which only its SYN cookie tells */
	BIRTH_STRAY,   /* it claims to, with the wrong number */
	BIRTH_UNKNOWN, /* of a connection through this host that nobody saw begin */
};

/* The server's initial sequence number of a half-open connection.
 * bpf_skc_to_tcp_request_sock() will not do: it answers null under an MPTCP
 * listener, which is what Go makes by default since 1.24. */
static __always_inline bool read_isn(struct bpf_sock *sk, __u32 *isn)
{
	__u32 zero = 0, size = bpf_core_type_size(struct tcp_request_sock);
	__u32 off = bpf_core_field_offset(struct tcp_request_sock, snt_isn);
	struct scratch *s;

	if (bpf_rdonly_cast) {
		struct tcp_request_sock *req =
			bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_request_sock));

		*isn = req->snt_isn;
		return true;
	}
	s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s || size > sizeof(s->bytes) || off > sizeof(s->bytes) - sizeof(*isn))
		return false;
	if (bpf_probe_read_kernel(s->bytes, size, sk))
		return false;
	*isn = *(__u32 *)(s->bytes + off);
	return true;
}

static __always_inline bool read_flow(CTX *ctx, const struct packet *p, struct flow *f)
{
	struct cursor c = start(ctx, p->l3);
	struct ports *ports;

	__builtin_memcpy(f->saddr, p->source, sizeof(f->saddr));
	if (p->v6) {
		struct ipv6hdr *ip = TAKE(&c, struct ipv6hdr);

		if (!ip)
			return false;
		__builtin_memcpy(f->daddr, &ip->daddr, sizeof(f->daddr));
	} else {
		struct iphdr *ip = TAKE(&c, struct iphdr);

		if (!ip)
			return false;
		f->daddr[2] = bpf_htonl(0xffff);
		f->daddr[3] = ip->daddr;
	}
	c.off = p->off;
	ports = TAKE(&c, struct ports);
	if (!ports)
		return false;
	f->sport = ports->source;
	f->dport = ports->dest;
	return true;
}

static __always_inline struct bpf_sock *find_socket(CTX *ctx, const struct packet *p,
						    const struct flow *f)
{
	struct bpf_sock_tuple t = {};
	__u32 size = sizeof(t.ipv4);

	if (p->v6) {
		__builtin_memcpy(t.ipv6.saddr, f->saddr, sizeof(t.ipv6.saddr));
		__builtin_memcpy(t.ipv6.daddr, f->daddr, sizeof(t.ipv6.daddr));
		t.ipv6.sport = f->sport;
		t.ipv6.dport = f->dport;
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = f->saddr[3];
		t.ipv4.daddr = f->daddr[3];
		t.ipv4.sport = f->sport;
		t.ipv4.dport = f->dport;
	}
	return bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
}

/* Does the ACK carry a SYN cookie of this listener's? Where it does not the
 * kernel answers a RST, and no connection is born. */
static __always_inline bool is_cookie(CTX *ctx, const struct packet *p, struct bpf_sock *sk)
{
	struct cursor c = start(ctx, p->off);
	struct tcphdr *tcp = TAKE(&c, struct tcphdr);

	if (!tcp)
		return false;
	c.off = p->l3;
	if (p->v6) {
		struct ipv6hdr *ip = TAKE(&c, struct ipv6hdr);

		return ip && !bpf_tcp_check_syncookie(sk, ip, sizeof(*ip), tcp, sizeof(*tcp));
	} else {
		struct iphdr *ip = TAKE(&c, struct iphdr);

		return ip && !bpf_tcp_check_syncookie(sk, ip, sizeof(*ip), tcp, sizeof(*tcp));
	}
}

static __always_inline enum birth judge_handshake(CTX *ctx, const struct packet *p,
						  struct bpf_sock *sk)
{
	struct cursor c = start(ctx, p->off);
	struct tcphdr *tcp;
	__u32 isn, state = sk->state;

	if (state == BPF_TCP_LISTEN)
		return is_cookie(ctx, p, sk) ? BIRTH_COOKIE : BIRTH_NONE;
	if (state != BPF_TCP_NEW_SYN_RECV)
		return BIRTH_NONE;
	tcp = TAKE(&c, struct tcphdr);
	if (!tcp || !tcp->ack || !read_isn(sk, &isn))
		return BIRTH_STRAY;
	return bpf_ntohl(tcp->ack_seq) == isn + 1 ? BIRTH_PROVED : BIRTH_STRAY;
}

/* Asks the kernel what a segment to a protected port is. */
__noinline enum birth find_birth(CTX *ctx, const struct packet *p, struct flow *f)
{
	struct bpf_sock *sk;
	enum birth b;

	if (!p || !f || !read_flow(ctx, p, f))
		return BIRTH_NONE;
	sk = find_socket(ctx, p, f);
	if (!sk)
		return BIRTH_NONE;
	b = judge_handshake(ctx, p, sk);
	bpf_sk_release(sk);
	return b;
}

static __always_inline enum reason take_slot(const struct entry *e, const struct source *s,
					     const struct flow *f)
{
	struct token fresh = {};
	enum reason over;
	struct usage *u;
	long err;

	over = reserve(s, e->conns, &u);
	if (over)
		return over;
	fresh.source = *s;
	fresh.taken = bpf_ktime_get_ns();
	err = bpf_map_update_elem(&tokens, f, &fresh, BPF_NOEXIST);
	if (err) { /* another CPU was first, or there is no room */
		__sync_fetch_and_add(&u->open, -1ULL);
		return err == -EEXIST ? 0 : REASON_LEDGER_FULL;
	}
	__sync_fetch_and_add(&u->admitted, 1);
	return 0;
}

/* Charges the flow to its source, once. REASON_CONNECTIONS, REASON_RATE, or why
 * the filter cannot tell (that passes), or 0: it is paid for. */
__noinline enum reason admit(const struct config *cfg, const struct entry *e,
			     const struct source *s, const struct flow *f)
{
	struct source source; /* copies: to Linux 6.1 an argument is no map key */
	struct token *held;
	struct flow flow;
	enum reason over;

	if (!cfg || !e || !s || !f)
		return REASON_INTERNAL;
	source = *s;
	flow = *f;
	held = bpf_map_lookup_elem(&tokens, &flow);
	if (held) {
		held->taken = bpf_ktime_get_ns();
		return 0;
	}
	if (is_full(e, &source))
		return REASON_CONNECTIONS;
	over = cap_rate(cfg, e, &source);
	return over == REASON_RATE ? over : take_slot(e, &source, &flow);
}
