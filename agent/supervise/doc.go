// Package supervise keeps one unprivileged child process running on listeners
// that it binds for it. It knows nothing of what the child serves beyond an
// admin socket with PUT /v1/settings.
//
// Life cycle: New resolves the user and, where a child of an earlier agent
// still runs as this one would start it, keeps that one; otherwise it ends
// that child and binds the ports. Run listens, starts the child, hands
// it the settings, waits for its end and starts it again after a growing
// pause. The listeners stay open in between, so that a restart costs no
// connection that the kernel has already accepted. When the context ends the
// child is asked to stop (SIGTERM), and killed after Options.Grace.
//
// The child outlives an agent that is killed. What the agent knows of it then
// is the record beside the admin socket: a file of the agent's own, for what
// the child says about itself is not to be trusted with a kill.
package supervise
