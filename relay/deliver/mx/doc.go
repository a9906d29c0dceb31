// Package mx finds the way to a domain: by its MX records (RFC 5321 5), the
// policy that it publishes for TLS (MTA-STS, RFC 8461; DANE, RFC 7672), or a
// route of the operator's own. It asks DNS and, for MTA-STS, HTTPS; it never
// speaks SMTP, and keeps what it learnt in memory only.
//
// What the names of strangers may cost is bounded: questions at once, time and
// size of each answer, and the entries of each cache.
package mx
