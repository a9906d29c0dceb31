package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long a command may take.
const patience = 30 * time.Second

// Result is what a command came to.
type Result struct {
	Out, Err string
	Code     int // exit status; -1 where it did not end by itself
}

// Run runs the command line on the edge with the edge's configuration.
func (s *Stage) Run(input string, args ...string) Result {
	return s.Raw(input, append([]string{"--config", s.Config()}, args...)...)
}

// Command is the command line on the edge with the edge's configuration, to be
// started by the caller.
func (s *Stage) Command(ctx context.Context, args ...string) *exec.Cmd {
	return s.Edge.Command(ctx, filepath.Join(s.bin, "synward"), append([]string{"--config", s.Config()}, args...)...)
}

// Raw is Run without the configuration.
func (s *Stage) Raw(input string, args ...string) Result {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := s.Edge.Command(ctx, filepath.Join(s.bin, "synward"), args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	code := exitCode(cmd.Run())
	return Result{Out: out.String(), Err: errs.String(), Code: code}
}

// Synward runs the command line on the edge and returns both its outputs and
// its exit status.
func (s *Stage) Synward(args ...string) (out string, code int) { return s.SynwardInput("", args...) }

// SynwardInput is Synward with something on the standard input.
func (s *Stage) SynwardInput(input string, args ...string) (out string, code int) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := s.Edge.Command(ctx, filepath.Join(s.bin, "synward"), append([]string{"--config", s.Config()}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	text, err := cmd.CombinedOutput()
	if code = exitCode(err); code < 0 {
		return string(text) + err.Error(), code
	}
	return string(text), code
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// RelayPID is the relay's process, 0 where none runs.
func (s *Stage) RelayPID() int {
	var status struct {
		Relay struct {
			PID int `json:"pid"`
		} `json:"relay"`
	}
	r := s.Run("", "status", "--json")
	if r.Code != 0 || json.Unmarshal([]byte(r.Out), &status) != nil {
		return 0
	}
	return status.Relay.PID
}

// KillRelay kills the relay with -9.
func (s *Stage) KillRelay() error {
	pid := s.RelayPID()
	if pid == 0 {
		return errors.New("no relay runs")
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
