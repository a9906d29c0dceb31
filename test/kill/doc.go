// Package kill ends the real synward-relay with SIGKILL, again and again and
// under load, and counts by unique id what the next hop got: nothing that was
// accepted may be missing, and nothing may come twice but what was on its way
// when the process died. go test -args -rounds N runs more rounds.
package kill
