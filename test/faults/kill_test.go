package faults

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// list is a policy of a few thousand entries in a network of its own, and the
// addresses by which it is known.
func list(network byte, n int) (text string, sentinels []netip.Addr) {
	var b strings.Builder
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, network, byte(i >> 8), byte(i)})
		fmt.Fprintf(&b, "allow %s\n", a)
		if i%97 == 0 || i == n-1 {
			sentinels = append(sentinels, a)
		}
	}
	return b.String(), sentinels
}

// killOn kills the agent as soon as the kernel lets in any of some addresses, or
// after a time.
func (e *edge) killOn(addrs []netip.Addr, most time.Duration) {
	e.t.Helper()
	f, err := loader.View(e.pins)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	defer e.kill() // before the maps are let go of, which takes its time
	for deadline := time.Now().Add(most); time.Now().Before(deadline); {
		for _, a := range addrs {
			ans, err := f.Probe(a, 587)
			if err != nil {
				e.t.Fatal(err)
			}
			if ans.Verdict == rule.Pass {
				return
			}
		}
	}
}

// TestKilledInTheMiddleOfAnApply kills the agent while it applies policies that
// replace everything, at any point and at the very moment when the kernel has
// the first of the new one: the kernel enforces the one policy or the other,
// with the agent dead and after it has started anew, and what was answered as
// done is done.
func TestKilledInTheMiddleOfAnApply(t *testing.T) {
	const entries = 3000
	e := newEdge(t, "", "")
	var texts [2]string
	var known [2][]netip.Addr
	for i := range texts {
		texts[i], known[i] = list(byte(i), entries)
	}
	// which is the policy that the kernel enforces now, whole.
	which := func(when string) int {
		t.Helper()
		a, b := len(e.passing(known[0]...)), len(e.passing(known[1]...))
		switch {
		case a == len(known[0]) && b == 0:
			return 0
		case a == 0 && b == len(known[1]):
			return 1
		}
		t.Fatalf("%s: a mixture: %d of %d and %d of %d", when, a, len(known[0]), b, len(known[1]))
		return -1
	}
	e.start()
	e.must(texts[0], "policy", "apply", "-")
	began := time.Now()
	e.must(texts[1], "policy", "apply", "-")
	whole := time.Since(began)
	is, both := 1, [2]int{}
	for round := range *rounds {
		type answer struct {
			said string
			code int
		}
		answered := make(chan answer, 1)
		go func() {
			said, code := e.run(texts[1-is], "policy", "apply", "-")
			answered <- answer{said, code}
		}()
		if round%2 == 0 {
			time.Sleep(rand.N(whole * 5 / 4))
			e.kill()
		} else {
			e.killOn(known[1-is], whole*2)
		}
		ans := <-answered
		dead := which("with the agent dead")
		if ans.code == 0 && dead == is {
			t.Fatalf("the apply was answered as done, and is not in force\n%s", ans.said)
		}
		e.start()
		now := which("with a new agent")
		if dead != is && now == is {
			t.Error("a new agent takes back what was in force")
		}
		if out := e.must("", "policy", "export"); strings.Count(out, "\nallow") != entries || !strings.Contains(out, fmt.Sprintf("allow     10.%d.0.0/32", now)) {
			t.Fatalf("the policy is not the one that the kernel enforces: %.300s", out)
		}
		if now != is {
			both[1]++
		} else {
			both[0]++
		}
		is = now
	}
	t.Logf("an apply takes %s; after %d kills the old policy %d times, the new one %d times", whole.Round(time.Millisecond), *rounds, both[0], both[1])
}

// TestUnconfirmedApplyIsRolledBackByTheNextAgent lets the agent die while an
// apply waits for its confirmation.
func TestUnconfirmedApplyIsRolledBackByTheNextAgent(t *testing.T) {
	e := newEdge(t, "", "")
	e.start()
	e.must("", "allow", "add", "192.0.2.1")
	e.must("allow 198.51.100.1\n", "policy", "apply", "-", "--confirm", "6s")
	answered := time.Now()
	e.enforces("198.51.100.1", "192.0.2.1")
	e.kill()
	time.Sleep(time.Until(answered.Add(6100 * time.Millisecond)))
	e.enforces("198.51.100.1", "192.0.2.1") // nobody is there who could
	e.start()
	e.enforces("192.0.2.1", "198.51.100.1")
	e.fails("too late: change 2 was rolled back", "", "policy", "confirm")
}
