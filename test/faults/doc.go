// Package faults does to a real agent what goes wrong with real hosts: it dies
// in the middle of a change, its disk fills up, its store is damaged, several
// people write at once, its lists turn hostile. In each case the kernel must
// enforce the old policy or the new one; it is asked itself, also while no
// agent runs. go test -args -rounds N kills the agent more often.
package faults
