// Package names finds the prefixes behind what an operator names: a host's
// addresses, and the sources that a domain's SPF record lets send for it (RFC
// 7208). It owns the questions to the name servers and the bounds on them; what
// becomes of the answers, and what was in force before, is the agent's.
//
// An answer is whole or an error: where any part of it could not be had, the
// caller keeps what it has.
package names
