/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map: key, value, who writes, who reads, why this size. The loader pins
 * all of them. Those with HALVES elements are double-buffered: the agent fills
 * the half that is not in force and turns state.active. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* A map whose elements are maps of their own, made anew by the agent in the size
 * that the policy needs: the inner size here is a template. */
#define MAP_OF_MAPS(name, n, inner, flags, key_, value_)                                           \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                          \
		__uint(max_entries, n);                                                            \
		__type(key, __u32);                                                                \
		__array(                                                                           \
			values, struct {                                                           \
				__uint(type, inner);                                               \
				__uint(max_entries, 1);                                            \
				__uint(map_flags, flags);                                          \
				__uint(key_size, sizeof(key_));                                    \
				__uint(value_size, sizeof(value_));                                \
			});                                                                        \
	} name SEC(".maps")

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

/* half → prefix → what it says (abi.h). The agent writes, attempts read. */
MAP_OF_MAPS(prefixes4, HALVES, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct prefix4, __u32);

MAP_OF_MAPS(prefixes6, HALVES, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct prefix6, __u32);

/* The index: what the tries say, in a form that answers at once (DXR, Zec, Rizzo
 * and Mikuc 2012). Compiled by the agent from the same rules, in one of INDEXES
 * buffers while the other is in force; memory-mapped, so that it is a copy. */

/* index → how far it answers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INDEXES);
	__type(key, __u32);
	__type(value, struct index);
} indexes SEC(".maps");

/* index * TOUCHED_WORDS + … → a bit for each stretch of IPv4 addresses that a
 * prefix touches: for each /24 in a large policy (2 MiB an index), for each /16 in
 * a small one, which stays in the CPU's nearest cache: see GRAIN4. Most strangers
 * are answered here. The same for IPv6, with a hash of the /32. */
#define TOUCHED_WORDS (1 << 18)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INDEXES *TOUCHED_WORDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} touched4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INDEXES *TOUCHED_WORDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} touched6 SEC(".maps");

/* index * 65536 + upper half of the address → the chunk. */
#define CHUNKS4 65536
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INDEXES *CHUNKS4);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct chunk);
} chunks4 SEC(".maps");

/* index → hash table of the touched /32s; index → pages of ranges. Sized for the policy. */
MAP_OF_MAPS(chunks6, INDEXES, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP | BPF_F_MMAPABLE, __u32,
	    struct chunk6);

MAP_OF_MAPS(pages4, INDEXES, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP | BPF_F_MMAPABLE, __u32,
	    struct page);

MAP_OF_MAPS(pages6, INDEXES, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP | BPF_F_MMAPABLE, __u32,
	    struct page);

/* half → index → rule; entry with its hits. The agent writes rules and entries,
 * attempts read them and count hits. A slot is written before a trie points to it
 * and reused only after a grace period. Rows are memory-mapped: they then begin
 * a page, and an entry's caps change beside hits that are being counted. */
MAP_OF_MAPS(rules, HALVES, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP, __u32, struct rule);

MAP_OF_MAPS(rows, HALVES, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP | BPF_F_MMAPABLE, __u32, struct row);

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
	__u8 observed;
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
	__u32 resets; /* RSTs sent in this window */
	__u32 pad;
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
	__uint(map_flags,
	       BPF_F_MMAPABLE); /* for the sake of its alignment: a bucket is a cache line */
	__type(key, __u32);
	__type(value, struct bucket);
} meters SEC(".maps");

/* source → its connections. Created only by a proved handshake or a socket, so
 * no claimed address can fill it; the sweeper removes those long without one.
 * A plain hash: an LRU would forget sources that have connections. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct source);
	__type(value, struct usage);
} usages SEC(".maps");

/* flow → the slot it has taken. Lives from the handshake's last ACK until the
 * kernel's socket is there, or TOKEN_NS. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow);
	__type(value, struct token);
} tokens SEC(".maps");

/* flow → a connection of a server that is not a socket of this host. Created by a
 * proved handshake, or by data of the server's: no claimed address can fill it.
 * Not preallocated, so that hosts without such servers pay nothing. */
#define PASSAGES 131072
enum passage_state {
	PASSAGE_OPEN = 1,    /* holds a slot */
	PASSAGE_CLOSING = 2, /* its end was seen: holds the slot a moment longer */
	PASSAGE_OVER = 3,    /* no slot; what comes late is known for what it is */
	PASSAGE_DEAD = 4,    /* removed on the sweeper's next run */
};
struct passage {
	struct source source;
	__u32 state;	    /* enum passage_state; changed by compare-and-swap alone */
	__u32 flags;	    /* PASSAGE_*; set by atomic or */
	__u32 epoch;	    /* of the count that the slot belongs to */
	__u32 client_next;  /* sequence number behind the last of the client's */
	__u32 server_first; /* of its data: what the handshake acknowledged */
	__u32 server_next;
	__u32 server_ack; /* what the server has acknowledged */
	__u32 client_fin; /* sequence number behind its FIN */
	__u32 server_fin;
	__u64 last; /* CLOCK_MONOTONIC ns, coarse */
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PASSAGES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct passage);
} passages SEC(".maps");

/* flow → the server's SYN-ACK. The egress program writes, the segment that ends
 * the handshake reads and removes. An LRU: SYNs in the name of a source that may
 * connect can make entries, and can at worst displace those of handshakes that
 * have waited while 65,536 others were answered. */
struct handshake {
	__u32 isn;
	__u32 earlier; /* of the SYN-ACK before, where it was another (SYN cookies) */
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct handshake);
} handshakes SEC(".maps");

/* index of an interface → since when its egress is watched, CLOCK_MONOTONIC ns.
 * The agent writes; segments to servers that are not sockets of this host read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} egresses SEC(".maps");

/* 0 → the timer of the passages. One of its own: they are looked at more often. */
struct passage_sweeper {
	struct bpf_timer timer;
	__u64 held; /* passages on the last run */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passage_sweeper);
} passage_sweepers SEC(".maps");

/* socket → what it counts for. Dies with the socket. The ledger's programs
 * write and read. */
struct account {
	struct source source;
	__u32 counted; /* 1: it holds a slot */
	__u32 epoch;   /* in which its opening was dealt with */
};
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct account);
} accounts SEC(".maps");

/* 0 → the timer that removes what nobody else does. One for all: a timer an
 * element fails with ENOMEM now and then, and its slot is then lost. */
struct sweeper {
	struct bpf_timer timer;
	__u64 runs;
	__u64 expired; /* tokens */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sweeper);
} sweepers SEC(".maps");

/* A place to read a kernel structure to, below Linux 6.2. */
struct scratch {
	__u8 bytes[512];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");
