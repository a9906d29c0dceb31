package queue

import (
	"context"
	"testing"
	"time"
)

// TestReady: what was put off comes at once when it is called, but not what an
// operator holds or what somebody has in hand.
func TestReady(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	id := add(t, q, "a")
	if _, err := q.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	if q.Ready(id) {
		t.Error("an item in hand is called ready")
	}
	if err := q.Postpone(id, time.Now().Add(time.Hour), ""); err != nil {
		t.Fatal(err)
	}
	if !q.Ready(id) {
		t.Error("an item that was put off is not ready")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	it, err := q.Next(ctx)
	if err != nil || it.ID != id || it.Forced {
		t.Fatalf("next is %+v, %v", it, err)
	}
	if err := q.Hold(id); err != nil {
		t.Fatal(err)
	}
	if err := q.Postpone(id, time.Now(), ""); err != nil {
		t.Fatal(err)
	}
	if q.Ready(id) || q.Ready("0000000000000") {
		t.Error("a held item or one that is not there is called ready")
	}
}
