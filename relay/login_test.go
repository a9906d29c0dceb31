package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// guessing is a logins whose hashing is counted and whose clock is the test's.
type guessing struct {
	*logins
	set    *compiled
	clock  time.Time
	hashed atomic.Int64
	wasted atomic.Int64
}

func newGuessing(t *testing.T) *guessing {
	t.Helper()
	set, err := testSettings().compile()
	if err != nil {
		t.Fatal(err)
	}
	g := &guessing{set: set, clock: time.Unix(1e9, 0)}
	g.logins = newLogins(func() time.Time { return g.clock })
	verify := g.verify
	g.logins.verify = func(h, p string) bool { g.hashed.Add(1); return verify(h, p) }
	g.logins.waste = func(string) { g.wasted.Add(1) }
	return g
}

func (g *guessing) try(source, name, password string) error {
	_, err := g.check(context.Background(), g.set, netip.MustParseAddr(source), name, password)
	return err
}

func TestLoginCache(t *testing.T) {
	g := newGuessing(t)
	for range 5 {
		if err := g.try("192.0.2.1", "Alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.hashed.Load(); n != 1 {
		t.Errorf("five logins took %d hashes, want 1", n)
	}
	if err := g.try("192.0.2.1", "alice", "Secret"); !errors.Is(err, errLogin) {
		t.Errorf("another password: %v", err)
	}
	g.clock = g.clock.Add(2 * loginAge)
	if err := g.try("192.0.2.1", "alice", "secret"); err != nil || g.hashed.Load() != 3 {
		t.Errorf("after its time: %v, %d hashes", err, g.hashed.Load())
	}
	set := testSettings()
	set.Accounts[0].Hash = cheapHash("new")
	g.set, _ = set.compile()
	if err := g.try("192.0.2.1", "alice", "secret"); !errors.Is(err, errLogin) {
		t.Errorf("the old password after a change: %v", err)
	}
	set.Accounts[0].Hash, set.Accounts[0].Disabled = cheapHash("secret"), true
	g.set, _ = set.compile()
	if err := g.try("192.0.2.1", "alice", "secret"); !errors.Is(err, errLogin) {
		t.Errorf("a disabled account: %v", err)
	}
}

func TestUnknownUserCostsTheSame(t *testing.T) {
	g := newGuessing(t)
	for _, name := range []string{"alice", "nobody", "gone", "", "a\x00b"} {
		before := g.hashed.Load() + g.wasted.Load()
		if err := g.try("192.0.2.1", name, "wrong"); !errors.Is(err, errLogin) {
			t.Errorf("%q: %v", name, err)
		}
		if n := g.hashed.Load() + g.wasted.Load() - before; n != 1 {
			t.Errorf("%q took %d hashes, want 1", name, n)
		}
	}
}

func TestSourceIsThrottled(t *testing.T) {
	g := newGuessing(t)
	for i := range sourceGuesses {
		if err := g.try("2001:db8::1", fmt.Sprint("user", i), fmt.Sprint("guess", i)); !errors.Is(err, errLogin) {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	before := g.hashed.Load() + g.wasted.Load()
	if err := g.try("2001:db8::2", "alice", "secret"); !errors.Is(err, errThrottled) {
		t.Errorf("one guess too many from the /64: %v", err)
	}
	if n := g.hashed.Load() + g.wasted.Load() - before; n != 0 {
		t.Errorf("a throttled source still costs %d hashes", n)
	}
	if err := g.try("2001:db8:1::1", "alice", "secret"); err != nil {
		t.Errorf("another source: %v", err)
	}
	if err := g.try("2001:db8::2", "alice", "secret"); err != nil {
		t.Errorf("a login that was verified just now: %v", err)
	}
	g.clock = g.clock.Add(2 * guessWindow)
	if err := g.try("2001:db8::2", "bob", "hunter2"); err != nil {
		t.Errorf("after its time: %v", err)
	}
}

func TestRepeatedFailureIsNoGuess(t *testing.T) {
	g := newGuessing(t)
	for range 3 * sourceGuesses {
		if err := g.try("192.0.2.1", "alice", "last year's"); !errors.Is(err, errLogin) {
			t.Fatal(err)
		}
	}
	if n := g.hashed.Load(); n != 1 {
		t.Errorf("the same failure took %d hashes, want 1", n)
	}
	if err := g.try("192.0.2.1", "bob", "hunter2"); err != nil {
		t.Errorf("a colleague at the same source: %v", err)
	}
}

func TestAccountIsSlowedNotLocked(t *testing.T) {
	if accountWait(accountGuesses-1) != 0 || accountWait(accountGuesses) == 0 || accountWait(1<<30) != maxWait {
		t.Error("the wait does not grow from 0 to its bound")
	}
	g := newGuessing(t)
	for i := range accountGuesses {
		if err := g.try(fmt.Sprintf("192.0.2.%d", i), "alice", fmt.Sprint("guess", i)); !errors.Is(err, errLogin) {
			t.Fatal(err)
		}
	}
	if err := g.try("192.0.2.200", "alice", "secret"); err != nil {
		t.Errorf("the owner is locked out: %v", err)
	}
}

func TestHashingIsBounded(t *testing.T) {
	g := newGuessing(t)
	var now, most atomic.Int64
	gate := make(chan struct{})
	g.logins.waste = func(string) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-gate
		now.Add(-1)
	}
	var wg sync.WaitGroup
	var busy atomic.Int64
	const tries = maxQueued + 50
	for i := range tries {
		wg.Go(func() {
			if errors.Is(g.try(fmt.Sprintf("10.%d.%d.1", i/200, i%200), fmt.Sprint("u", i), "x"), errAuthBusy) {
				busy.Add(1)
			}
		})
	}
	eventually(t, "the surplus is turned away", func() bool { return busy.Load() == tries-maxQueued })
	close(gate)
	wg.Wait()
	if most.Load() > int64(cap(g.slots)) {
		t.Errorf("%d hashes at once, want at most %d", most.Load(), cap(g.slots))
	}
}

func TestRecentIsBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := newRecent[int, int](time.Minute, 100, func() time.Time { return now })
	for i := range 10000 {
		r.update(i, inc)
		if n := len(r.cur) + len(r.old); n > 200 {
			t.Fatalf("%d are kept", n)
		}
	}
	if _, ok := r.get(9999); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := r.get(1); ok {
		t.Error("the oldest is still there")
	}
	now = now.Add(90 * time.Second)
	if _, ok := r.get(9999); !ok {
		t.Error("forgotten before two ages")
	}
	now = now.Add(time.Minute)
	if _, ok := r.get(9999); ok {
		t.Error("still there after two ages")
	}
}
