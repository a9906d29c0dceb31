package relay

import (
	"sync"
	"time"
)

// recent remembers values for between one and two ages, but never more than
// 2 × room of them: it keeps two generations and drops the older one when the
// newer is full or of age. A flood of strange keys so costs bounded memory, and
// at worst makes it forget early.
type recent[K comparable, V any] struct {
	age  time.Duration
	room int
	now  func() time.Time

	mu       sync.Mutex
	cur, old map[K]V
	turned   time.Time
}

func newRecent[K comparable, V any](age time.Duration, room int, now func() time.Time) *recent[K, V] {
	return &recent[K, V]{age: age, room: room, now: now, cur: map[K]V{}, old: map[K]V{}, turned: now()}
}

// get returns what is remembered under k.
func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(false)
	return r.look(k)
}

// update puts f of what is remembered under k (or of the zero value) there.
func (r *recent[K, V]) update(k K, f func(V) V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(len(r.cur) >= r.room)
	v, _ := r.look(k)
	v = f(v)
	r.cur[k] = v
	return v
}

func (r *recent[K, V]) look(k K) (V, bool) {
	if v, ok := r.cur[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	return v, ok
}

func (r *recent[K, V]) turn(full bool) {
	now := r.now()
	switch aged := now.Sub(r.turned); {
	case aged >= 2*r.age:
		r.old, r.cur, r.turned = map[K]V{}, map[K]V{}, now
	case aged >= r.age || full:
		r.old, r.cur, r.turned = r.cur, map[K]V{}, now
	}
}
