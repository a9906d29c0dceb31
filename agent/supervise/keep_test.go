package supervise_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// drawer is a Keeper, as the service manager is one.
type drawer struct{ kept, asked map[string]*os.File }

func (d *drawer) Kept(name string) *os.File {
	f := d.kept[name]
	delete(d.kept, name)
	return f
}

func (d *drawer) Keep(name string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	if cerr := raw.Control(func(from uintptr) { fd, err = unix.Dup(int(from)) }); cerr != nil || err != nil {
		return fmt.Errorf("dup: %v %v", cerr, err)
	}
	if old := d.asked[name]; old != nil {
		old.Close()
	}
	d.asked[name] = os.NewFile(uintptr(fd), name)
	return nil
}

func (d *drawer) Forget() error {
	for _, f := range d.kept {
		f.Close()
	}
	clear(d.kept)
	return nil
}

// restart makes what was given to the keeper what it hands out.
func (d *drawer) restart() { d.kept, d.asked = d.asked, map[string]*os.File{} }

// A client that comes while no agent runs waits, and is served by the next.
func TestNobodyIsRefusedWhileTheAgentRestarts(t *testing.T) {
	o := place(t)
	d := &drawer{kept: map[string]*os.File{}, asked: map[string]*os.File{}}
	o.Keeper = d
	s, stop := run(t, o)
	at := fmt.Sprintf("127.0.0.1:%d", o.Listeners[0].Port)
	eventually(t, "the child runs", running(s))
	dial(t, o)
	stop()
	c, err := net.DialTimeout("tcp", at, 2*time.Second)
	if err != nil {
		t.Fatalf("between two agents: %v", err)
	}
	defer c.Close()
	d.restart()
	s, _ = run(t, o)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Errorf("the connection that waited got %q: %v", line, err)
	}
	eventually(t, "the child runs", running(s))
	// A port that the configuration no longer names is given up.
	o2 := place(t)
	gone := d.asked
	d.restart()
	if len(gone) != 1 {
		t.Fatalf("%d sockets kept", len(gone))
	}
	o2.Keeper = d
	s, _ = run(t, o2)
	eventually(t, "the child runs", running(s))
	if len(d.kept) != 0 {
		t.Error("the socket of a port that is not wanted any more is kept")
	}
}
