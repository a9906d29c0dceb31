/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the kernel and Go share. Go's side is generated from this (bpf2go -type),
 * never written by hand. A change of a layout here is a new ABI_VERSION. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>

#define ABI_VERSION 2
#define MAX_PORTS 8 /* protected ports; equals rule.MaxPorts */
#define MAX_STEPS 8 /* steps of a rule that are followed; equals rule.MaxSteps */
#define HALVES 2    /* a policy in force and the next one, see struct state */

/* Append-only: numbers go out in events, counters and scripts. A retired one stays. */
enum reason {
	REASON_NOT_OURS = 0,	 /* no protected port in sight; not counted */
	REASON_ALLOWED = 1,	 /* an allow entry covers the source */
	REASON_DEFAULT_PASS = 2, /* no entry; the port's default is pass */
	REASON_NO_ENTRY = 3,	 /* no entry; the port's default is drop */
	REASON_DENIED = 4,	 /* a deny entry covers the source */
	REASON_RATE = 5,	 /* new connections per second: cap reached */
	REASON_FRAGMENT = 6,	 /* a fragment that starts or hides a connection */
	REASON_HEADERS = 7,	 /* more tags or extension headers than the bound */
	REASON_TRUNCATED = 8,	 /* the TCP header is cut */
	REASON_INTERNAL = 9,	 /* the filter could not decide: passes */
	REASON_RATE_FULL = 10,	 /* no room to track the source's rate: passes */
	REASON_CONNECTIONS = 11, /* concurrent connections: cap reached */
	REASON_SYN_DATA = 12,	 /* a SYN that carries data: TCP Fast Open, RFC 7413 */
	REASON_STRAY = 13,	 /* does not finish the handshake that it claims to */
	REASON_SEGMENT = 14,	 /* no connection of a source that may have one */
	REASON_LEDGER_FULL = 15, /* no room to count the source's connections: passes */
	REASON_COUNT = 16,
};

enum decision {
	DECISION_NONE = 0,
	DECISION_PASS = 1, /* equals rule.Pass */
	DECISION_DROP = 2, /* equals rule.Drop */
};

/* The one word that every packet reads first, and once. It says which half of
 * the double-buffered maps is in force, so that a whole policy changes at once,
 * and which index of it may answer before the tries. */
struct state {
	__u32 version; /* ABI_VERSION */
	__u32 current; /* the half, its index and how fine that is: HALF and so on */
	__u64 build;   /* hash of the object whose program is in force */
};
#define HALF(current) ((current) & 1)
#define INDEX(current) ((current) >> 1 & 0x7f)	 /* 0 = none; or the index + 1 */
#define GRAIN4(current) ((current) >> 8 & 0x1f)	 /* a bit of touched4: 2^… addresses */
#define GRAIN6(current) ((current) >> 16 & 0x1f) /* of touched6: 2^… hashes */
#define INDEXES 2

struct port {
	__be16 number; /* 0 = slot not in use */
	__u8 observe;  /* count what would be dropped, drop nothing */
	__u8 all;      /* every segment of a source that may not connect is dropped */
	__u8 reset;    /* refuse by a RST, not by silence */
	__u8 forward;  /* the server is not a socket of this host */
	__u8 pad[2];
};

struct prefix4 {
	__u32 len;
	__be32 addr;
};

struct prefix6 {
	__u32 len;
	__be32 addr[4];
};

/* What the longest matching prefix says, as a trie and the index hold it: 0 for
 * nothing, the entry for every port and for ever (DIRECT and its index), or else
 * the index of a rule. */
#define DIRECT 0x80000000

/* Where ports or times differ: per port the index of the entry that decides. After `expires` the
 * rule at `next` says it instead. Index 0 of the rules is not used: a miss goes straight to the
 * ports' defaults. */
struct rule {
	__u32 entry[MAX_PORTS]; /* below MAX_PORTS: that port's default */
	__u32 expires;		/* CLOCK_BOOTTIME seconds; 0 = never */
	__u32 next;		/* index of a rule; 0 = the ports' defaults */
};

/* What one entry, or one port's default, says. An entry's id and decision never
 * change in place; its limits may. */
struct entry {
	__u64 id;
	__u64 interval;	 /* ns that one new connection costs; 0 = no cap on the rate */
	__u64 tolerance; /* ns that a source may be ahead: (burst - 1) * interval */
	__u32 conns;	 /* cap on concurrent connections; 0 = none */
	__u8 decision;	 /* enum decision */
	__u8 shared;	 /* caps count for the whole prefix, not per source */
	__u8 pad[2];
};

/* One half's settings. */
#define PORT_HASHES 64
#define PORT_HASH(port, spread) ((__u32)((port) * (spread)) >> 26)
struct config {
	struct port ports[MAX_PORTS];
	__u8 slots[PORT_HASHES];	  /* hash of a port's number → where it would be in ports */
	struct entry defaults[MAX_PORTS]; /* for a source that no rule covers */
	__u32 ipv6_prefix;		  /* bits of an IPv6 address that make a source */
	__u32 enforcing;		  /* any port enforces: what hides its port is dropped */
	__u64 seed;			  /* secret of the rate table's hash */
	__u64 netns;			  /* cookie of the namespace whose sockets count */
	__u32 epoch;  /* of the ledger: accounts of an earlier one do not count */
	__u32 spread; /* the hash of port numbers: a factor that keeps these apart */
};

/* Ranges of addresses, in order: where each begins within its chunk, and what
 * it says. A page is one element: the search within it calls nothing. */
#define PAGE_RANGES 512
struct page {
	__u32 from[PAGE_RANGES];
	__u32 says[PAGE_RANGES];
};
#define ASK_TRIE 0xffffffff /* a range says: prefixes longer than the index sees */

/* Where the ranges of a chunk of the address space stand: of an IPv4 /16, or of
 * an IPv6 /32. They are in one page, or they begin one. With no ranges the whole
 * chunk says one thing, `first`. */
struct chunk {
	__u32 first;
	__u32 count;
};

/* An IPv6 chunk in its hash table. */
struct chunk6 {
	__be32 key;
	__u32 used;
	struct chunk chunk;
};

/* One index. It knows every IPv4 address; of IPv6 what its tables tell. */
struct index {
	__u32 v6;    /* 0: ask the trie for IPv6 */
	__u32 mask6; /* of the hash table, a power of two less one */
};

struct hit {
	__u64 count;
	__u64 last; /* CLOCK_MONOTONIC ns, coarse */
};

/* An entry with its hits: one line of a CPU's cache, where the map begins one. */
struct row {
	struct entry entry;
	struct hit hit;
	__u64 pad[2];
};

/* What is counted together: an entry, and a source's address as far as it
 * counts. Addresses are IPv6 here, IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2). */
struct source {
	__u64 entry;
	__be32 addr[4]; /* zero where the whole prefix shares one cap */
};

/* One source's connections. */
struct usage {
	__u64 open; /* now: tokens and counted sockets; or a mark, where there are none */
	__u64 peak;
	__u64 admitted;
	__u64 refused;
	__u64 touched; /* CLOCK_MONOTONIC ns: the last admission */
};
#define USAGE_IDLE (1ULL << 63) /* for long: the next admission takes it off */
#define USAGE_DEAD (1ULL << 62) /* about to be removed */

/* A connection on the wire, the client first. */
struct flow {
	__be32 saddr[4];
	__be32 daddr[4];
	__be16 sport;
	__be16 dport;
};

/* A slot that a proved handshake has taken, until its socket takes it over. */
struct token {
	struct source source;
	__u64 taken;  /* CLOCK_MONOTONIC ns */
	__u64 cookie; /* of the socket, where it could not take the slot over */
};

/* Per CPU, reason and port. */
struct counter {
	__u64 enforced;
	__u64 observed; /* would have been dropped, passed in observe mode */
};

/* Attempts of one source that were refused. IPv4 is ::ffff:a.b.c.d here. */
struct event {
	__u64 time;  /* CLOCK_BOOTTIME ns */
	__u64 entry; /* id; 0 = none */
	__be32 source[4];
	__be16 port;
	__u8 reason;
	__u8 observed;
	__u32 ifindex;
	__u32 count;	  /* attempts that this record stands for */
	__u32 suppressed; /* records that this CPU has not sent since its last one */
};

/* A test run asks for a verdict by putting this in front of the packet, as XDP
 * metadata; the filter answers in it and moves no counter and no cap. Frames
 * from a wire carry no metadata, so nobody outside can ask. */
struct probe {
	__u32 magic; /* PROBE_MAGIC */
	__u8 reason;
	__u8 decision;
	__u8 observed;
	__u8 pad;
	__u64 entry; /* id of the entry that decided; 0 = none */
	__u32 open;  /* the source's connections now */
	__u32 conns; /* its cap on them */
};
#define PROBE_MAGIC 0x53594e57 /* "SYNW" */

_Static_assert(sizeof(struct state) == 16, "state");
_Static_assert(sizeof(struct port) == 8, "port");
_Static_assert(sizeof(struct config) == MAX_PORTS * 40 + PORT_HASHES + 32, "config");
_Static_assert(sizeof(struct prefix4) == 8, "prefix4");
_Static_assert(sizeof(struct prefix6) == 20, "prefix6");
_Static_assert(sizeof(struct rule) == MAX_PORTS * 4 + 8, "rule");
_Static_assert(sizeof(struct entry) == 32, "entry");
_Static_assert(sizeof(struct page) == PAGE_RANGES * 8, "page");
_Static_assert(sizeof(struct chunk) == 8, "chunk");
_Static_assert(sizeof(struct chunk6) == 16, "chunk6");
_Static_assert(sizeof(struct index) == 8, "index");
_Static_assert(sizeof(struct hit) == 16, "hit");
_Static_assert(sizeof(struct row) == 64, "row");
_Static_assert(sizeof(struct counter) == 16, "counter");
_Static_assert(sizeof(struct event) == 48, "event");
_Static_assert(sizeof(struct probe) == 24, "probe");
_Static_assert(sizeof(struct source) == 24, "source");
_Static_assert(sizeof(struct usage) == 40, "usage");
_Static_assert(sizeof(struct flow) == 36, "flow");
_Static_assert(sizeof(struct token) == 40, "token");
