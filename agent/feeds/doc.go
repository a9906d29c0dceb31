// Package feeds reads lists of prefixes that somebody else keeps: from a file
// of this host, or from an HTTPS address. It takes the forms that blocklists
// use, and trusts a list with nothing: size, time, redirects, targets and bad
// lines have bounds. What becomes of a list, and what was in force before, is
// the agent's; a list that cannot be had whole is an error.
package feeds
