package relay

import "time"

// The bounds of one session, counted since its last accepted message. They
// leave room for a client that sends to a thousand dead addresses at a time
// no more than for one that knocks to see what happens.
const (
	maxErrors   = 20
	maxCommands = 200 // that are no part of a mail transaction
	maxAuth     = 3   // failed logins
)

// tally counts what a session costs us without bringing mail.
type tally struct {
	began    time.Time // the session
	since    time.Time // the session began or a message was accepted
	messages int       // accepted
	refused  int       // senders, recipients and messages
	errors   int
	commands int
	auth     int
}

// command counts a command; NOOP and its like are free only so often.
func (t *tally) command(v verb) answer {
	switch v {
	case verbRcpt, verbData, verbQuit:
		return ansNone
	}
	if t.commands++; t.commands > maxCommands {
		return ansTooManyCommands
	}
	return ansNone
}

// reply counts a reply and says what to send in its stead when it was one too
// many. Too many recipients is no error: a list's sender goes on after it.
func (t *tally) reply(r reply) answer {
	if r.code < 400 || r.code == 452 {
		return ansNone
	}
	if t.errors++; t.errors > maxErrors && r.code != 421 {
		return ansTooManyErrors
	}
	return ansNone
}

// accepted starts the count again.
func (t *tally) accepted(now time.Time) {
	t.since, t.errors, t.commands = now, 0, 0
	t.messages++
}
