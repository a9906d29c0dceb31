package kill

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestKilled is the promise of a 250: it is kept over every death.
func TestKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it runs the relay as another user")
	}
	h := startHop(t)
	v := newVictim(t, h.addr)
	v.start()
	l := &load{addr: v.addr, accepted: map[string]bool{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { l.run(ctx, 16); close(ended) }()
	type death struct{ begun, done time.Time }
	var deaths []death
	for range *rounds {
		time.Sleep(300*time.Millisecond + rand.N(700*time.Millisecond))
		begun, done := v.kill()
		deaths = append(deaths, death{begun, done})
		v.start()
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	<-ended
	for end := time.Now().Add(2 * time.Minute); v.waiting() > 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d messages do not leave the queue\n%s", v.waiting(), v.said())
		}
	}
	counted := v.counted()
	v.kill()

	h.mu.Lock()
	defer h.mu.Unlock()
	lost, twice, unexplained := 0, 0, 0
	for id := range l.accepted {
		if len(h.got[id]) == 0 {
			lost++
			t.Errorf("%s was accepted and has not arrived", id)
		}
	}
	for id, times := range h.got {
		for i := 1; i < len(times); i++ {
			twice++
			// The first copy's result was not durable when the process died.
			explained := false
			for _, d := range deaths {
				explained = explained || times[i-1].After(d.begun.Add(-5*time.Second)) && times[i-1].Before(d.done.Add(5*time.Second)) && times[i].After(d.begun)
			}
			if !explained {
				unexplained++
				t.Errorf("%s came again at %v, after %v: no death in between", id, times[i], times[i-1])
			}
		}
	}
	if len(l.accepted) < 20**rounds {
		t.Errorf("only %d messages were accepted: that is no load", len(l.accepted))
	}
	if counted < len(l.accepted) {
		t.Errorf("the quota has counted %d messages, of %d accepted", counted, len(l.accepted))
	}
	for _, text := range h.wrong {
		t.Errorf("came damaged: %q", text)
	}
	for _, err := range l.odd {
		t.Errorf("refused: %v", err)
	}
	t.Logf("%d deaths: accepted %d, arrived %d, lost %d, twice %d (unexplained %d)", len(deaths), len(l.accepted), len(h.got), lost, twice, unexplained)
}

var rounds = flag.Int("rounds", 4, "how often the relay is killed")
