/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From the token to the socket and back: the kernel's own sockets keep count.
 *
 * Opening and closing are told by sockops, and once more by a tracepoint, since
 * each misses some: sockops those of other cgroups, the tracepoint those that
 * come while it runs (hence two copies of it). An account is opened once and
 * closed once, whoever tells first. */
#pragma once
#include "cap.h"
#include "kernel.h"
#include "match.h"

/* The entry that lets a flow's client pass; false: it does not count. */
static __always_inline bool find_account(const struct config *cfg, __u32 current,
					 const struct flow *f, struct source *s)
{
	struct packet p = {};
	struct match m = {};
	__u32 slot = find_slot(cfg, f->dport);

	if (slot >= MAX_PORTS)
		return false;
	__builtin_memcpy(p.source, f->saddr, sizeof(p.source));
	p.v6 = p.source[0] || p.source[1] || p.source[2] != bpf_htonl(0xffff);
	if (!match(cfg, current, &p, slot, &m) || m.entry->decision != DECISION_PASS)
		return false;
	make_source(cfg, m.entry, p.source, s);
	return true;
}

/* Does this host's socket table keep the count of the port? */
static __always_inline bool counts_sockets(const struct config *cfg, __be16 port)
{
	__u32 slot = find_slot(cfg, port);

	return slot < MAX_PORTS && !cfg->ports[slot & (MAX_PORTS - 1)].forward;
}

/* Who deletes the token owns its slot. A socket without one was there before
 * the gate saw it: it counts, whatever the cap. */
static __always_inline void open_account(struct account *a, const struct flow *f,
					 const struct config *cfg, __u32 current)
{
	struct token *t = bpf_map_lookup_elem(&tokens, f);
	struct source s = {};
	struct usage *u;

	if (t) {
		s = t->source;
		if (!bpf_map_delete_elem(&tokens, f)) {
			a->source = s;
			a->counted = 1;
			return;
		}
	}
	if (!find_account(cfg, current, f, &s))
		return;
	if (reserve(&s, 0, &u))
		return;
	a->source = s;
	a->counted = 1;
}

static __always_inline void close_account(struct account *a)
{
	__u32 current;
	const struct config *cfg = current_config(&current);

	if (cfg && LOAD(a->epoch) == cfg->epoch && __sync_lock_test_and_set(&a->counted, 0))
		release(&a->source);
}

/* True once a socket and epoch. */
static __always_inline bool first_sight(struct account *a, const struct config *cfg)
{
	__u32 was = LOAD(a->epoch);

	if (was == cfg->epoch || __sync_val_compare_and_swap(&a->epoch, was, cfg->epoch) != was)
		return false;
	a->counted = 0;
	return true;
}

/* One fixed-offset load a field: the verifier wants no merged branches here. */
static __always_inline bool sockops_flow(struct bpf_sock_ops *o, struct flow *f)
{
	__u32 family = o->family, port = o->local_port;
	__u32 r4 = o->remote_ip4, l4 = o->local_ip4;
	__u32 r0 = o->remote_ip6[0], r1 = o->remote_ip6[1], r2 = o->remote_ip6[2],
	      r3 = o->remote_ip6[3];
	__u32 l0 = o->local_ip6[0], l1 = o->local_ip6[1], l2 = o->local_ip6[2],
	      l3 = o->local_ip6[3];

	asm volatile("" : "+r"(r4), "+r"(l4));
	asm volatile("" : "+r"(r3), "+r"(l3));
	if (family == AF_INET) {
		f->saddr[2] = f->daddr[2] = bpf_htonl(0xffff);
		f->saddr[3] = r4;
		f->daddr[3] = l4;
	} else {
		f->saddr[0] = r0, f->saddr[1] = r1, f->saddr[2] = r2, f->saddr[3] = r3;
		f->daddr[0] = l0, f->daddr[1] = l1, f->daddr[2] = l2, f->daddr[3] = l3;
	}
	f->dport = bpf_htons(port);
	f->sport = (__be16)(o->remote_port >> 16);
	return true;
}

/* Clients that vanish give their slot back without the server's help: its
 * sockets notice after KEEPALIVE_S and four probes (RFC 1122 4.2.3.6). */
#define KEEPALIVE_S 120

/* sk: as bpf_setsockopt() takes it where it is called. */
static __always_inline void keep_alive(void *sk)
{
	int v = 1;

	bpf_setsockopt(sk, SOL_SOCKET, SO_KEEPALIVE, &v, sizeof(v));
	v = KEEPALIVE_S;
	bpf_setsockopt(sk, SOL_TCP, TCP_KEEPIDLE, &v, sizeof(v));
	v = KEEPALIVE_S / 4;
	bpf_setsockopt(sk, SOL_TCP, TCP_KEEPINTVL, &v, sizeof(v));
	v = 4;
	bpf_setsockopt(sk, SOL_TCP, TCP_KEEPCNT, &v, sizeof(v));
	v = KEEPALIVE_S * 2000; /* ms */
	bpf_setsockopt(sk, SOL_TCP, TCP_USER_TIMEOUT, &v, sizeof(v));
}

static __always_inline void on_open(struct bpf_sock_ops *o, struct bpf_sock *sk,
				    const struct config *cfg, __u32 current)
{
	struct flow f = {};
	struct account *a;
	struct token *t;

	if (cfg->netns != bpf_get_netns_cookie(o) || !sockops_flow(o, &f))
		return;
	if (!counts_sockets(cfg, f.dport))
		return;
	a = bpf_sk_storage_get(&accounts, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_sock_ops_cb_flags_set(o, o->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	keep_alive(o);
	if (a) {
		if (first_sight(a, cfg))
			open_account(a, &f, cfg, current);
		return;
	}
	/* no memory: the token itself stands for the socket until it closes */
	t = bpf_map_lookup_elem(&tokens, &f);
	if (t)
		t->cookie = bpf_get_socket_cookie(o);
}

static __always_inline void on_close(struct bpf_sock_ops *o, struct bpf_sock *sk)
{
	struct account *a = bpf_sk_storage_get(&accounts, sk, 0, 0);
	struct flow f = {};
	struct source s;
	struct token *t;

	if (a) {
		close_account(a);
		return;
	}
	if (!sockops_flow(o, &f))
		return;
	t = bpf_map_lookup_elem(&tokens, &f);
	if (!t || !t->cookie || t->cookie != bpf_get_socket_cookie(o))
		return;
	s = t->source;
	if (!bpf_map_delete_elem(&tokens, &f))
		release(&s);
}

static __always_inline bool socket_flow(struct sock *sk, struct flow *f)
{
	__u16 family = sk->__sk_common.skc_family;

	if (family == AF_INET) {
		f->saddr[2] = f->daddr[2] = bpf_htonl(0xffff);
		f->saddr[3] = sk->__sk_common.skc_daddr;
		f->daddr[3] = sk->__sk_common.skc_rcv_saddr;
	} else if (family == AF_INET6) {
		bpf_core_read(&f->saddr, sizeof(f->saddr), &sk->__sk_common.skc_v6_daddr);
		bpf_core_read(&f->daddr, sizeof(f->daddr), &sk->__sk_common.skc_v6_rcv_saddr);
	} else {
		return false;
	}
	f->sport = sk->__sk_common.skc_dport;
	f->dport = bpf_htons(sk->__sk_common.skc_num);
	return true;
}

static __always_inline int on_state(struct sock *sk, int from, int to)
{
	const struct config *cfg;
	struct flow f = {};
	struct account *a;
	__u32 current;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (to == BPF_TCP_CLOSE) { /* its port is 0 by now */
		a = bpf_sk_storage_get(&accounts, sk, 0, 0);
		if (a)
			close_account(a);
		return 0;
	}
	if (from != BPF_TCP_SYN_RECV || to != BPF_TCP_ESTABLISHED)
		return 0;
	cfg = current_config(&current);
	if (!cfg || cfg->netns != sk->__sk_common.skc_net.net->net_cookie)
		return 0;
	if (!socket_flow(sk, &f) || !counts_sockets(cfg, f.dport))
		return 0;
	a = bpf_sk_storage_get(&accounts, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (a && first_sight(a, cfg))
		open_account(a, &f, cfg, current);
	return 0;
}

/* By its server, who has chosen the times himself. */
static __always_inline bool is_kept_alive(struct sock *sk)
{
	int v = 0;

	return !bpf_getsockopt(sk, SOL_SOCKET, SO_KEEPALIVE, &v, sizeof(v)) && v;
}

/* One socket of the walk that counts what was open before the ledger. The walk
 * holds the socket's lock, so it cannot close between being seen and counted. */
static __always_inline void adopt_socket(struct sock *sk)
{
	const struct config *cfg;
	int flags = BPF_SOCK_OPS_STATE_CB_FLAG;
	struct flow f = {};
	struct account *a;
	__u32 current;

	cfg = current_config(&current);
	if (!cfg || cfg->netns != sk->__sk_common.skc_net.net->net_cookie)
		return;
	if (!socket_flow(sk, &f) || !counts_sockets(cfg, f.dport))
		return;
	a = bpf_sk_storage_get(&accounts, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!a)
		return;
	/* from 6.12 on sockops tells of this one's end too; before, the tracepoint */
	bpf_setsockopt(sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
	if (first_sight(a, cfg)) {
		if (!is_kept_alive(sk))
			keep_alive(sk);
		open_account(a, &f, cfg, current);
	}
}
