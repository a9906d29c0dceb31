// Package relay is the SMTP front: it takes mail from those who may send it
// and hands it to the queue. Its life: New with the inherited listeners, Apply
// with the whole desired state (again at will: a live reload), Run until the
// context ends, which drains the sessions.
//
// The protocol engine is emersion/go-smtp, kept in a cage: it never sees the
// socket but a guard (guard.go), which terminates TLS, hands on one checked
// command line at a time, reads message bodies itself and puts every reply
// into our own words (replies.go). What go-smtp v0.25.1 leaves open is closed
// there. Who may relay what is one pure function (rules.go).
//
// The package opens no config, key or user file (Config.Settings does, in the
// agent's process) and imports nothing of bpf, loader or agent.
package relay
