package faults

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFullDisk(t *testing.T) {
	state := t.TempDir()
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=2m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(state, syscall.MNT_DETACH) })
	e := newEdge(t, state, "")
	e.start()
	e.must("", "allow", "add", "192.0.2.1")
	fill, err := os.Create(filepath.Join(state, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = fill.Write(block)
	}
	fill.Close()

	big, _ := list(0, 20_000)
	e.fails("nothing changed: write the store", big+"allow 198.51.100.1\n", "policy", "apply", "-")
	e.enforces("192.0.2.1", "198.51.100.1")
	eventually(t, "status says that the disk is full", func() bool { return strings.Contains(e.problems(), "no space left on device") })
	e.kill()
	e.enforces("192.0.2.1", "198.51.100.1")
	e.start() // on the full disk
	e.enforces("192.0.2.1", "198.51.100.1")
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	e.must("", "allow", "remove", "192.0.2.1")
	e.must("", "allow", "add", "198.51.100.1")
	e.enforces("198.51.100.1", "192.0.2.1")
}

func TestDamagedStore(t *testing.T) {
	e := newEdge(t, "", "")
	e.start()
	spam := filepath.Join(e.dir, "spam.txt")
	if err := os.WriteFile(spam, []byte("203.0.113.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.must("", "allow", "add", "192.0.2.1", "--note", "the office")
	e.must("", "feed", "add", "spam", spam, "--deny", "--every", "6h")
	for file, has := range map[string]string{"policy": "203.0.113.0/24", "feeds": "spam"} {
		eventually(t, "the last good "+file+" has it", func() bool {
			b, err := os.ReadFile(filepath.Join(e.state, "last-good."+file))
			return err == nil && strings.Contains(string(b), has)
		})
	}
	e.kill()
	damage := func() {
		t.Helper()
		b, err := os.ReadFile(e.store())
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] ^= 0x5a
		}
		if err := os.WriteFile(e.store(), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	e.enforces("192.0.2.1", "198.51.100.1")
	e.start()
	e.enforces("192.0.2.1", "198.51.100.1")
	if p := e.problems(); !strings.Contains(p, "the last good policy is in force") || !strings.Contains(p, "store.db.damaged-") {
		t.Errorf("status says %q", p)
	}
	out := e.must("", "policy", "export")
	if !strings.Contains(out, `note="the office"`) || !strings.Contains(out, "url="+spam+" every=6h") {
		t.Errorf("the policy is now\n%s", out)
	}
	e.must("", "feed", "refresh", "spam") // from where it was
	e.must("", "allow", "add", "192.0.2.2")
	e.kill()

	// Without a last good policy the agent does not start, and the filter goes on.
	damage()
	files, _ := filepath.Glob(filepath.Join(e.state, "last-good*"))
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	e.launch()
	if err := <-e.ended; err == nil {
		t.Error("the agent has started on a damaged store")
	}
	e.cmd = nil
	e.enforces("192.0.2.2", "198.51.100.1")
	if !strings.Contains(e.log(), "the store is damaged") {
		t.Error("the agent does not say what is wrong")
	}
}
