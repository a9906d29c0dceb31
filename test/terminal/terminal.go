// Package terminal is a terminal for tests: a pty with a screen behind it that
// can be read, typed to and resized as a person does.
package terminal

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/synward/synward/test/lab"
)

// patience is how long Await waits.
const patience = 15 * time.Second

// Terminal is a pty and what its screen shows.
type Terminal struct {
	TTY *os.File // the program's end

	t      lab.T
	master *os.File
	mu     sync.Mutex
	screen *vt.Emulator
	raw    strings.Builder
}

// New opens a terminal of a width and height in cells. It goes with the test.
func New(t lab.T, width, height int) *Terminal {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatalf("open a pty: %v", err)
	}
	x := &Terminal{TTY: tty, t: t, master: master, screen: vt.NewEmulator(width, height)}
	x.setSize(width, height)
	var ends sync.WaitGroup
	ends.Go(x.show)
	ends.Go(func() { io.Copy(master, x.screen) }) // what the terminal answers to queries
	t.Cleanup(func() {
		x.screen.InputPipe().(io.Closer).Close()
		tty.Close()
		master.Close()
		ends.Wait()
	})
	return x
}

// show puts on the screen what the program writes.
func (x *Terminal) show() {
	buf := make([]byte, 4096)
	for {
		n, err := x.master.Read(buf)
		if err != nil {
			return
		}
		x.mu.Lock()
		x.screen.Write(buf[:n])
		x.raw.Write(buf[:n])
		x.mu.Unlock()
	}
}

func (x *Terminal) setSize(width, height int) {
	x.t.Helper()
	if err := pty.Setsize(x.master, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		x.t.Fatalf("set the terminal's size: %v", err)
	}
}

// Start starts a program in a session of its own, with this as its terminal.
// What it still lacks of stdin, stdout and stderr is the terminal.
func (x *Terminal) Start(cmd *exec.Cmd) {
	x.t.Helper()
	for _, std := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		if *std == nil {
			*std = x.TTY
		}
	}
	cmd.Stdin = x.TTY
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(cmd.Environ(), "TERM=xterm-256color")
	if err := cmd.Start(); err != nil {
		x.t.Fatalf("start %s: %v", cmd, err)
	}
}

// Resize changes the terminal's size; the program on it gets SIGWINCH.
func (x *Terminal) Resize(width, height int) {
	x.t.Helper()
	x.mu.Lock()
	x.screen.Resize(width, height)
	x.mu.Unlock()
	x.setSize(width, height)
}

// Type sends keys.
func (x *Terminal) Type(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.master, keys); err != nil {
		x.t.Fatalf("type %q: %v", keys, err)
	}
}

// Lines are the rows of the screen, without the blanks at their ends.
func (x *Terminal) Lines() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for y := range x.screen.Height() {
		var b strings.Builder
		for col := range x.screen.Width() {
			if c := x.screen.CellAt(col, y); c != nil {
				b.WriteString(c.Content)
			}
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

// Raw is all that the program has written so far.
func (x *Terminal) Raw() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.raw.String()
}

// Await waits until the screen is as wanted, and fails the test where it never is.
func (x *Terminal) Await(what string, wanted func(lines []string) bool) {
	x.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		lines := x.Lines()
		if wanted(lines) {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the screen never had %s:\n%s", what, strings.Join(lines, "\n"))
		}
	}
}

// AwaitText waits until some row of the screen has a text.
func (x *Terminal) AwaitText(text string) {
	x.t.Helper()
	x.Await(text, func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), text) })
}
