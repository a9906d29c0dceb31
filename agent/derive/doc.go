// Package derive keeps entries as the names and feeds are that they come of.
// It owns when these are asked for again, what is done about an answer that is
// none or too much, and the requests of the control socket about them. Entries
// go the agent's one way of change; the package touches neither store nor
// kernel.
//
// A name stands in its entries: each carries it, with all that the operator
// gave, so that the last good set outlives the agent and undo brings a name
// back. A feed has a document besides, with its place. Whatever fails, what was
// good stays in force, and status says so.
package derive
