// Package agent is the daemon's inside: it keeps the policy, in memory and in
// the store, makes the kernel's filter equal to it, keeps the filter on its
// interfaces, answers the control socket and minds the relay's process.
//
// Life cycle: New reads the store and compiles the policy, opens or loads the
// filter, writes the rules and only then attaches, so that no packet meets a
// filter without its rules. Run serves until its context ends; the filter goes
// on enforcing after that. Every change takes one way: the store is written,
// the kernel is synced, the caller is answered; where the kernel refuses, the
// store is put back. With the entries the store takes who changed them and
// why (history.go), and until when a change has to be confirmed (undo.go).
//
// The package reads no files but those in the store's folder, and knows nothing of what the relay
// serves: accounts are documents to it, and settings bytes.
package agent
