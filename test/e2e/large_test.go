package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/synward/synward/test/stage"
)

// large is a policy of n prefixes, none of them on the stage.
func large(n int) string {
	var b strings.Builder
	for i := range n {
		if i%4 == 0 {
			fmt.Fprintf(&b, "allow 2001:db8:%x:%x::/64\n", 0x1000+i>>12, i&0xfff)
			continue
		}
		fmt.Fprintf(&b, "allow %d.%d.%d.%d max-conns=%d\n", 11+i>>16, i>>8&255, i&255, i%200, 10+i%5)
	}
	return b.String()
}

// TestLargePolicy: with 100,000 entries loaded, a command that has returned is
// in force, by the kernel's word and on the wire; killed, the agent comes back
// with all of it.
func TestLargePolicy(t *testing.T) {
	t.Parallel()
	const n = 100_000
	s := set(t, true)
	file := filepath.Join(s.Dir, "large.policy")
	if err := os.WriteFile(file, []byte(large(n)), 0o644); err != nil {
		t.Fatal(err)
	}
	counted := func(want int) {
		t.Helper()
		var status struct{ Agent struct{ Allow int } }
		if ask(t, s, &status, "status"); status.Agent.Allow != want {
			t.Errorf("%d entries, want %d", status.Agent.Allow, want)
		}
	}
	if out := must(t, s, "policy", "apply", file); !strings.Contains(out, fmt.Sprintf("%d more", n-100)) {
		t.Errorf("apply says %.300s", out)
	}
	counted(n)
	for range 3 { // the first meets what follows from the apply
		must(t, s, "allow", "add", stage.ClientAddr)
		if got := verdict(t, s, stage.ClientAddr, 587); got != "pass" {
			t.Errorf("added, and the kernel says %s", got)
		}
		must(t, s, "allow", "remove", stage.ClientAddr)
		if got := verdict(t, s, stage.ClientAddr, 587); got != "drop" {
			t.Errorf("removed, and the kernel says %s", got)
		}
	}
	must(t, s, "allow", "add", stage.ClientAddr)
	heard(t, knock{s.Client, "", stage.EdgeForClient, "587", "greeting"}, knock{s.Stranger, "", stage.EdgeForStranger, "587", "silence"})
	if err := s.EndAgent(syscall.SIGKILL); err == nil {
		t.Fatal("the agent was not killed")
	}
	s.StartAgent()
	counted(n + 1)
	if got := verdict(t, s, stage.ClientAddr, 587) + verdict(t, s, "11.1.1.57", 587) + verdict(t, s, stage.StrangerAddr, 587); got != "passpassdrop" {
		t.Errorf("after the kill client, a prefix and a stranger get %s", got)
	}
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "100.%d.%d.%d\n", 64+i>>16, i>>8&255, i&255)
	}
	if out, code := s.SynwardInput(list.String(), "allow", "add", "-"); code != 0 || !strings.Contains(out, "more") {
		t.Fatalf("allow add -: %d %.300s", code, out)
	}
	counted(2*n + 1)
	if out, code := s.SynwardInput(list.String()+"100.64.0.300\n", "allow", "remove", "-"); code != 2 || !strings.Contains(out, fmt.Sprintf("stdin:%d:1: ", n+1)) {
		t.Errorf("a bad line: %d %.300s", code, out)
	}
	counted(2*n + 1)
	if out, code := s.SynwardInput(list.String(), "allow", "remove", "-"); code != 0 {
		t.Errorf("allow remove -: %d %.300s", code, out)
	}
	must(t, s, "policy", "undo")
	must(t, s, "policy", "undo")
	counted(n + 1)
}
