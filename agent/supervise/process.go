package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running child, started by this agent or an earlier one.
type process struct {
	pid  int
	done chan struct{} // closed when it has ended
	how  string        // how it ended, set before done is closed
}

// start runs the child with the listeners as its descriptors 3, 4, 5…
func start(o Options, uid, gid uint32, files []*os.File) (*process, error) {
	cmd := exec.Command(o.Command, o.Args...)
	cmd.Env = o.Env
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	// A file of the process's own, not a pipe to the agent: it must still be
	// there to write to when the agent is gone.
	if o.Stderr != nil {
		cmd.Stdout, cmd.Stderr = o.Stderr, o.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Groups empty: none of the agent's. From uid 0 to another the kernel
		// drops every capability at exec.
		Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{}},
		Setpgid:    true, // a Ctrl-C meant for the agent stops the child by the agent
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s as %s: %w", o.Command, o.User, without(err, "CAP_SETUID and CAP_SETGID"))
	}
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		p.how = "exit status 0"
		if err != nil {
			p.how = err.Error()
		}
		close(p.done)
	}()
	return p, nil
}

// watch follows a process that is no child of this one until it ends. Who
// watches one also stops it: so the goroutine ends with Supervisor.Run.
func watch(r record) (*process, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", r.PID, err)
	}
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		unix.Close(fd)
		return nil, os.ErrProcessDone
	}
	p := &process{pid: r.PID, done: make(chan struct{})}
	go func() {
		defer unix.Close(fd)
		defer close(p.done)
		p.how = "ended (started by an earlier agent)"
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
				return
			}
		}
	}()
	return p, nil
}

// stop asks the process to end and kills it after grace. Its error means that
// the process is another's: it goes on.
func (p *process) stop(grace time.Duration) error {
	if err := syscall.Kill(p.pid, syscall.SIGTERM); errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("end relay %d: %w", p.pid, without(err, "CAP_KILL"))
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
	return nil
}
