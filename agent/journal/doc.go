// Package journal keeps what has happened at the ports, on disk and within
// bounds: Attempts (per source, port and verdict, counted by day), Uses (how
// often each entry decided, over restarts of kernel and agent) and Log (single
// events). It owns a folder; what the records mean is the agent's business.
//
// None of it is needed to enforce. A file that cannot be read is left out and
// said; a full disk loses records, never what stands on disk already.
package journal
