// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The filter at TCX ingress (Linux 6.6), for an interface whose place for XDP
 * somebody else has. The same judge on the same maps: an object of its own,
 * because the verifier takes a function for one kind of context only. Explain
 * asks the program of filter.bpf.c, which is loaded in any case. */
#include <linux/pkt_cls.h>
#include "skb.h"
#include "abi.h"
#include "maps.h"
#include "parse.h"
#include "match.h"
#include "cap.h"
#include "gate.h"
#include "forward.h"
#include "judge.h"
#include "record.h"
#include "reset.h"

/* The longest headers without IPv6 extensions: tags, IPv4 options, TCP options. */
#define USUAL_HEADERS (ETH_HLEN + MAX_TAGS * 4 + 60 + 60)

/* An skb need not begin with all of its headers. What XDP would have seen in the
 * frame's first buffer is brought in sight: for most packets nothing is to do. */
static __always_inline void look(struct __sk_buff *skb, struct packet *p, enum reason *why)
{
	__u32 tags = skb->vlan_present;

	pull(skb, USUAL_HEADERS);
	p->tags = tags;
	parse(skb, p, why);
	if (*why != REASON_TRUNCATED && (!p->tcp || p->flags))
		return;
	if (!pull(skb, OFFSET_MASK))
		return;
	__builtin_memset(p, 0, sizeof(*p));
	*why = 0;
	p->tags = tags;
	parse(skb, p, why);
}

/* Silence, or a RST: the packet becomes it and leaves where it came in. What
 * passes goes on to the next program (TC_ACT_UNSPEC is TCX_NEXT). */
static __always_inline int act(struct __sk_buff *skb, const struct config *cfg,
			       const struct packet *p, const struct outcome *o)
{
	if (o->decision != DECISION_DROP || o->observed)
		return TC_ACT_UNSPEC;
	if (wants_reset(cfg, p, o) && write_reset(skb, p))
		return bpf_redirect(skb->ifindex, 0);
	return TC_ACT_SHOT;
}

SEC("tcx/ingress")
int synward_tcx(struct __sk_buff *skb)
{
	struct outcome o = {.slot = MAX_PORTS};
	struct packet p = {};
	const struct config *cfg;
	__u32 current;

	look(skb, &p, &o.reason);
	if (!o.reason && !p.tcp)
		return TC_ACT_UNSPEC;
	cfg = current_config(&current);
	if (!cfg)
		return TC_ACT_UNSPEC;
	judge(skb, cfg, current, &p, 0, &o);
	if (o.reason == REASON_NOT_OURS)
		return TC_ACT_UNSPEC;
	record(skb, &p, &o);
	return act(skb, cfg, &p, &o);
}

char _license[] SEC("license") = "Dual BSD/GPL";
