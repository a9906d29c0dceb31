// Package loader is the only code that talks to the kernel about the filter:
// the XDP program of bpf/, its maps and its links, as one object.
//
// Its life cycle:
//
//	Open     make the filter, or re-open the one that is pinned; where this
//	         build's program differs, it takes the old one's place under the
//	         pinned links, and no packet goes unfiltered
//	Sync     make the kernel's rules equal a policy
//	Attach   put the filter on an interface; Detach takes it off
//	Close    let go; the pins stay and the kernel goes on enforcing
//	Unload   detach everything, remove every pin
//
// On bpffs it looks like this:
//
//	DIR/                 locked (flock) by the process that may write
//	DIR/filter/          the program and every map; made under another name
//	                     and renamed, so it is there whole or not at all
//	DIR/links/IFINDEX    one pinned link an interface
//	DIR/egress/IFINDEX   the same for its egress, where a server is elsewhere:
//	                     the TCX link, or the program where clsact runs it
//
// Two halves of every policy map exist. Small changes go into the half that is
// in force, one entry at a time, additions first; larger ones are built in the
// other half, and one word turns the filter to it.
package loader
