package faults

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestTwoWritersAtOnce has many commands change the policy at the same time:
// each is in force as it is answered, none is lost, and of whole policies one
// is in force whole.
func TestTwoWritersAtOnce(t *testing.T) {
	e := newEdge(t, "", "")
	e.start()
	const writers, each = 6, 5
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				addr := fmt.Sprintf("192.0.2.%d", w*each+i)
				if out, code := e.run("", "allow", "add", addr); code != 0 {
					t.Errorf("add %s: exit status %d\n%s", addr, code, out)
				}
				if len(e.passing(netip.MustParseAddr(addr))) != 1 {
					t.Errorf("%s is added, and the kernel drops it", addr)
				}
			}
		})
	}
	all.Wait()
	text := e.must("", "policy", "export")
	if n := strings.Count(text, "\nallow"); n != writers*each {
		t.Errorf("%d entries, want %d", n, writers*each)
	}
	var h struct{ Changes []struct{ ID, Added int } }
	if err := json.Unmarshal([]byte(e.must("", "policy", "history", "--json")), &h); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(h.Changes)
	for i, c := range h.Changes {
		if c.ID != i+1 || c.Added != 1 {
			t.Errorf("change %d of history is %+v", i+1, c)
		}
	}

	var texts []string
	var known [][]netip.Addr
	for i := range 4 {
		text, addrs := list(byte(i), 500)
		texts, known = append(texts, text), append(known, addrs)
	}
	for _, text := range texts {
		all.Go(func() {
			if out, code := e.run(text, "policy", "apply", "-"); code != 0 {
				t.Errorf("apply: exit status %d\n%s", code, out)
			}
		})
	}
	all.Wait()
	whole := 0
	for i, addrs := range known {
		switch len(e.passing(addrs...)) {
		case 0:
		case len(addrs):
			whole++
			if n := strings.Count(e.must("", "policy", "export"), fmt.Sprintf("allow     10.%d.", i)); n != 500 {
				t.Errorf("the kernel has policy %d, but %d of its lines are in the export", i, n)
			}
		default:
			t.Errorf("a part of policy %d is in force", i)
		}
	}
	if whole != 1 {
		t.Errorf("%d policies are in force, want 1", whole)
	}
}
