// Package deliver sends queued messages onward. It owns the connections to
// next hops, when to try again, and the bounces (RFC 3464); it takes items from
// a queue.Queue and knows nothing of how they came in.
//
// Life cycle: New, Configure (again at any time, without a pause), Run until
// its context ends. Run then takes nothing new and lets transactions that are
// under way end, for a bounded time: cut between the last dot and the reply,
// a message would arrive twice.
//
// A next hop that cannot be reached is tried by one item at a time, with
// exponential back-off; the others wait without an attempt of their own.
//
// The SMTP client is our own. go-smtp's has no PIPELINING (four round trips a
// message instead of two), turns a bare LF into CRLF and hands on a bare CR or
// NUL, lets NUL into commands, takes no context, and reads replies of any
// number of lines.
package deliver
