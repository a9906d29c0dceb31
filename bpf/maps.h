/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map: key, value, who writes, who reads, why this size. The loader pins
 * all of them. Those with HALVES elements are double-buffered: the agent fills
 * the half that is not in force and turns state.active. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* 0 → which half is in force. The agent writes, every packet reads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

/* half → its settings. The agent writes, every packet reads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__type(value, struct config);
} configs SEC(".maps");

/* half → prefix → index into rules. The agent writes, attempts read. The inner
 * sizes here are templates: the agent sizes each trie for its policy. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_LPM_TRIE);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(key_size, sizeof(struct prefix4));
			__uint(value_size, sizeof(__u32));
		});
} prefixes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_LPM_TRIE);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(key_size, sizeof(struct prefix6));
			__uint(value_size, sizeof(__u32));
		});
} prefixes6 SEC(".maps");

/* half → index → rule, entry, hit. The agent writes the first two, attempts
 * read; attempts count hits, the agent reads them. A rule's slot is written
 * before a trie points to it and reused only after a grace period. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_INNER_MAP);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, sizeof(struct rule));
		});
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_INNER_MAP);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, sizeof(struct entry));
		});
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, HALVES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_INNER_MAP);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, sizeof(struct hit));
		});
} hits SEC(".maps");

/* reason * (MAX_PORTS + 1) + slot → packets; slot MAX_PORTS is for packets
 * whose port is not in sight. Packets write their CPU's, the agent reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT *(MAX_PORTS + 1));
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* Refused attempts for the agent. 256 KiB hold 4,000 records: some seconds at
 * the bounded rate, should the agent be away for a moment. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* One CPU's view of the sources that it refused last, so that a source that
 * hammers is one record a second and not one a packet. Direct-mapped by a hash:
 * a stranger's address can displace another, never make the map grow. */
#define RECENT 1024
struct recent {
	__be32 source[4];
	__be16 port;
	__u8 reason;
	__u8 pad;
	__u32 count; /* not sent yet */
	__u64 sent;  /* jiffies of the last record */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECENT);
	__type(key, __u32);
	__type(value, struct recent);
} recent SEC(".maps");

/* 0 → how many records this CPU may still send in this stretch of time. */
struct budget {
	__u64 window; /* jiffies / WINDOW */
	__u32 sent;
	__u32 suppressed;
	__u64 total; /* records not sent, since the filter was loaded */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} budget SEC(".maps");

/* hash of (entry, source) → up to WAYS sources with the time they have used up.
 * Attempts that an entry lets pass write and read; 32,768 buckets are 2 MiB and
 * 131,072 sources at once. Never grows, whatever addresses are claimed. */
#define BUCKETS 32768
#define WAYS 4
struct meter {
	__u64 tag; /* which source; 0 = free */
	__u64 tat; /* theoretical arrival time, CLOCK_MONOTONIC ns */
};
struct bucket {
	struct meter way[WAYS];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} meters SEC(".maps");
