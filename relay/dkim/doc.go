// Package dkim signs messages (RFC 6376) and makes the keys for that. It signs
// for the domain in From and for no other; whose mail deserves a signature is
// the caller's to say.
package dkim
