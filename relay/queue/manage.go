package queue

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// find returns the live entry of an id. The caller holds the lock.
func (q *Queue) find(id string) (*entry, error) {
	n, err := parseID(id)
	if err != nil {
		return nil, err
	}
	e := q.items[n]
	if e == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return e, nil
}

// List returns all items, the oldest first.
func (q *Queue) List() []Item {
	q.mu.Lock()
	all := make([]Item, 0, len(q.items))
	for _, e := range q.items {
		all = append(all, e.item())
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b Item) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Get returns one item, or ErrNotFound.
func (q *Queue) Get(id string) (Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.find(id)
	if err != nil {
		return Item{}, err
	}
	return e.item(), nil
}

// Stats returns the totals.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{Items: len(q.items), Bytes: q.bytes, Deferred: q.deferred, Held: q.held, Damaged: q.damaged}
	for len(q.oldest) > 0 && q.oldest[0].gone {
		q.oldest = q.oldest[1:]
		q.oldestGone--
	}
	if len(q.oldest) > 0 {
		s.Oldest = q.oldest[0].Received
	}
	return s
}

// Settle says what an attempt at an item from Next has brought. It is in force
// at once and durable with the next commit. An item whose recipients have all
// ended is gone. For an item that was deleted meanwhile it does nothing.
func (q *Queue) Settle(id string, u Update) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.alive(); err != nil {
		return err
	}
	e, err := q.find(id)
	if err != nil {
		return err
	}
	if err := e.end(u.Results); err != nil {
		return err
	}
	e.inFlight = false
	q.forget(e)
	if len(e.st.Done) == len(e.Rcpts) {
		return q.remove(e, "done", false)
	}
	if e.st.Attempts == 0 {
		q.deferred++
	}
	e.st.Attempts++
	e.st.Err, e.st.Next, e.next = u.Err, u.Next.UTC(), u.Next
	e.st.Warned = e.st.Warned || u.Warned
	q.schedule(e)
	return q.save(e, false)
}

// Done records at once that some recipients of an item from Next have ended,
// while others of it are still being tried. It says whether all have: then the
// item is gone, and no Settle is due.
func (q *Queue) Done(id string, results []Result) (all bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.alive(); err != nil {
		return false, err
	}
	e, err := q.find(id)
	if err != nil {
		return false, err
	}
	if err := e.end(results); err != nil {
		return false, err
	}
	if len(e.st.Done) == len(e.Rcpts) {
		return true, q.remove(e, "done", false)
	}
	return false, q.save(e, false)
}

// Postpone gives an item from Next back untried: it is due again at next, why
// is what the list shows. Nothing is written, so that a next hop that is down
// does not cost a record for each item that waits for it.
func (q *Queue) Postpone(id string, next time.Time, why string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.find(id)
	if err != nil {
		return err
	}
	e.inFlight = false
	e.next = next
	if why != "" {
		e.st.Err = why
	}
	q.schedule(e)
	return nil
}

// Retry makes an item due now. A held one stays held.
func (q *Queue) Retry(id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.find(id)
	if err != nil {
		return err
	}
	e.next, e.forced = q.opt.Now(), true
	q.schedule(e)
	return nil
}

// Ready makes an item due now that was put off, without an operator's force. It
// says whether Next will hand it out.
func (q *Queue) Ready(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.find(id)
	if err != nil || e.inFlight || e.st.Held {
		return false
	}
	if now := q.opt.Now(); e.next.After(now) {
		e.next = now
		q.schedule(e)
	}
	return true
}

// Hold keeps an item from being tried until Release. An attempt under way ends
// as it ends. Durable when it returns.
func (q *Queue) Hold(id string) error { return q.setHeld(id, true) }

// Release ends Hold and makes the item due now. Durable when it returns.
func (q *Queue) Release(id string) error { return q.setHeld(id, false) }

func (q *Queue) setHeld(id string, held bool) error {
	q.mu.Lock()
	e, err := q.find(id)
	if err == nil {
		err = q.alive()
	}
	if err != nil || e.st.Held == held {
		q.mu.Unlock()
		return err
	}
	e.st.Held = held
	if held {
		q.held++
	} else {
		q.held--
		e.next, e.forced = q.opt.Now(), true
	}
	q.schedule(e)
	return q.save(e, true)
}

// Delete removes an item without telling anybody. Durable when it returns.
func (q *Queue) Delete(id string) error {
	q.mu.Lock()
	e, err := q.find(id)
	if err == nil {
		err = q.alive()
	}
	if err != nil {
		q.mu.Unlock()
		return err
	}
	return q.remove(e, "deleted", true)
}

// save records an entry's state. The caller holds the lock; with wait it is
// released, and the record durable on return.
func (q *Queue) save(e *entry, wait bool) error {
	j, err := json.Marshal(e.st)
	if err != nil {
		if wait {
			q.mu.Unlock()
		}
		return fmt.Errorf("record %s: %w", formatID(e.id), err)
	}
	return q.submit(e, kindUpdate, j, wait)
}

// remove takes an entry out of the index and records it; the lock as in save.
func (q *Queue) remove(e *entry, why string, wait bool) error {
	e.gone = true
	q.schedule(e)
	q.forget(e)
	delete(q.items, e.id)
	q.bytes -= e.size
	if e.st.Attempts > 0 {
		q.deferred--
	}
	if e.st.Held {
		q.held--
	}
	// One old item must not keep all that came and went behind it in memory.
	if q.oldestGone++; q.oldestGone > 64+len(q.oldest)/2 {
		q.oldest = slices.DeleteFunc(q.oldest, func(e *entry) bool { return e.gone })
		q.oldestGone = 0
	}
	j, err := json.Marshal(removal{Why: why})
	if err != nil {
		j = []byte("{}") // cannot be: one string
	}
	return q.submit(e, kindRemove, j, wait)
}

func (q *Queue) submit(e *entry, k kind, payload []byte, wait bool) error {
	buf := append(make([]byte, headerSize, recordSize(len(payload))), payload...)
	p := &pending{e: e, kind: k, buf: seal(buf, e.id, k)}
	if wait {
		return q.commit(p)
	}
	q.later(p)
	return nil
}
