package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/synward/synward/test/stage"
)

// show prints the steps and takes the hosts down at its end. It is the lab's T.
type show struct {
	out    io.Writer
	colour bool
	bin    string
	stage  *stage.Stage

	step, failed int
	cleanups     []func()
}

func colourful(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

// Helper is for testing.TB only.
func (s *show) Helper() {}

// Fatalf ends the show.
func (s *show) Fatalf(format string, args ...any) { panic(fmt.Errorf(format, args...)) }

// Cleanup adds what has to be undone, last first.
func (s *show) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// TempDir is a folder that is gone when the show ends.
func (s *show) TempDir() string {
	dir, err := os.MkdirTemp("", "synward-demo-")
	if err != nil {
		s.Fatalf("make a folder: %v", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// strike takes everything down.
func (s *show) strike() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	s.cleanups = nil
}

// scene runs one step: what is done, and what must be true of its result.
func (s *show) scene(title string, do func() (said string, ok bool)) {
	s.step++
	began := time.Now()
	said, ok := do()
	mark, colour := "ok", "32"
	if !ok {
		mark, colour = "FAILED", "31"
		s.failed++
	}
	fmt.Fprintf(s.out, "\n%2d. %s  [%s, %s]\n", s.step, title, s.paint(colour, mark), time.Since(began).Round(time.Millisecond))
	for line := range strings.Lines(said) {
		fmt.Fprintln(s.out, "    "+strings.TrimRight(line, "\n"))
	}
}

func (s *show) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// verdict prints the end and returns the exit status.
func (s *show) verdict() int {
	if s.failed > 0 {
		fmt.Fprintf(s.out, "\n%d of %d steps FAILED; the agent's log:\n%s", s.failed, s.step, s.stage.Log())
		return 1
	}
	fmt.Fprintf(s.out, "\nAll %d steps did what they should.\n", s.step)
	return 0
}
