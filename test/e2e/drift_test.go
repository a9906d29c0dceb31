package e2e

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/test/stage"
)

// TestDoctorFindsDrift: the doctor counts as the kernel does, names the source
// where the filter does not, and what it says mends it.
func TestDoctorFindsDrift(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "allow", "add", stage.ClientPrefix, "--ports", "587")
	var open []net.Conn
	for range 3 {
		open = append(open, greeted(t, s, ""))
	}
	if f := finding(t, s, "counts"); f.Grade != "ok" || !strings.HasPrefix(f.Text, "3 connections") {
		t.Errorf("with three connections: %+v", f)
	}
	if out := must(t, s, "sources"); !strings.Contains(out, "OPEN  PEAK") {
		t.Errorf("sources show no peak:\n%s", out)
	}
	loseASlot(t, filepath.Join(s.PinDir, "filter", "usages"))
	if f := finding(t, s, "counts"); f.Grade != "fail" || !strings.HasPrefix(f.Text, stage.ClientAddr+"/32: 4 connections counted, the kernel has 3 sockets") ||
		!strings.Contains(f.Mend, s.PinDir+"/ledger") {
		t.Errorf("with a slot lost: %+v", f)
	}
	if err := s.EndAgent(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.PinDir, "ledger")); err != nil {
		t.Fatal(err)
	}
	s.StartAgent()
	eventually(t, "the count begins anew", func() bool { return finding(t, s, "counts").Grade == "ok" })
	for _, c := range open {
		c.Close()
	}
	eventually(t, "no connection is left", func() bool {
		f := finding(t, s, "counts")
		return f.Grade == "ok" && strings.HasPrefix(f.Text, "0 connections")
	})
}

// loseASlot counts one connection more than there is, as a bug would.
func loseASlot(t *testing.T, usages string) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(usages, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	key, use := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	for it := m.Iterate(); it.Next(&key, &use); {
		if open := binary.NativeEndian.Uint64(use); open == 3 { // struct usage begins with it
			binary.NativeEndian.PutUint64(use, open+1)
			if err := m.Put(key, use); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("nobody has three connections")
}
