package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// lastGoodName is the file beside the store that has the policy as text.
const lastGoodName = "last-good.policy"

// keptDocs are the store's collections that no policy's text has and that are kept
// beside the store too, each in a file of its own: accounts, and where the lists
// of feeds are.
func keptDocs() []string { return []string{accounts, FeedDocs} }

// easeSaving is how much longer it is left alone than it takes to write: that of
// a million entries keeps a core and the disk busy for seconds.
const easeSaving = 100

// openStore opens the store and reads policy and history from it. A damaged
// one is moved away, and the last good policy takes its place.
func (a *Agent) openStore(ctx context.Context, path string) error {
	a.lastGood = filepath.Join(filepath.Dir(path), lastGoodName)
	defer a.openJournal(filepath.Join(filepath.Dir(path), "journal"))
	err := a.readStore(ctx, path)
	if !errors.Is(err, store.ErrCorrupt) {
		return err
	}
	return a.replaceStore(ctx, path, err)
}

func (a *Agent) readStore(ctx context.Context, path string) (err error) {
	s, err := store.OpenBolt(path)
	if err != nil {
		return err
	}
	a.store, a.history, a.pending = s, nil, nil
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	set, err := readSet(ctx, s)
	if err != nil {
		return err
	}
	a.set, a.saved = set, policy.NewSet()
	for _, kind := range keptDocs() {
		if _, _, err := store.Docs(ctx, s, kind); err != nil {
			return err
		}
	}
	if err := a.loadHistory(ctx); err != nil {
		return err
	}
	return a.loadPending(ctx)
}

// readSet reads the policy without holding all of it twice.
func readSet(ctx context.Context, s store.Store) (set *policy.Set, err error) {
	err = s.View(ctx, func(r store.Reader) error {
		var bad error
		set = policy.Collect(func(yield func(policy.Entry) bool) {
			for e, err := range r.Entries() {
				if bad = err; err != nil || !yield(e) {
					return
				}
			}
		})
		return bad
	})
	return set, err
}

// replaceStore begins a new store with the last good policy and documents. Where
// there is no policy, the damaged store stays where it is and the agent does not
// start: the filter goes on with the rules that it has.
func (a *Agent) replaceStore(ctx context.Context, path string, cause error) error {
	set, err := store.ReadLastGood(a.lastGood, a.now())
	if err != nil {
		return fmt.Errorf("%w; and there is no last good policy to go on with: %w", cause, err)
	}
	b, count := store.Batch{}, map[string]int{}
	for _, kind := range keptDocs() {
		docs, err := readDocs(a.docsFile(kind))
		if err != nil {
			return fmt.Errorf("%w; and the last good %s cannot be read: %w", cause, kind, err)
		}
		b.PutDocs, count[kind] = append(b.PutDocs, docs...), len(docs)
	}
	aside := fmt.Sprintf("%s.damaged-%s", path, a.now().UTC().Format("20060102T150405Z"))
	if err := os.Rename(path, aside); err != nil {
		return errors.Join(cause, fmt.Errorf("move the damaged store away: %w", err))
	}
	for e := range set.All() {
		b.Put = append(b.Put, e)
	}
	s, err := store.OpenBolt(path)
	if err == nil {
		_, err = s.Commit(ctx, b)
		err = errors.Join(err, s.Close())
	}
	if err == nil {
		err = a.readStore(ctx, path)
	}
	if err != nil {
		return errors.Join(cause, err, os.Rename(aside, path))
	}
	a.problem("store", fmt.Errorf("it was damaged and is moved to %s; the last good policy is in force instead, %d entries, %d accounts and the places of %d feeds, and history begins anew: check it with synward policy export, then restart the agent",
		aside, set.Len(), count[accounts], count[FeedDocs]))
	return nil
}

// saveLastGood writes policy and documents beside the store, where they differ
// from what stands there. The policy waits its turn, but for the last time.
func (a *Agent) saveLastGood(last bool) error {
	set, _ := a.state()
	if began := time.Now(); set != a.saved && (last || began.After(a.saveNext) && began.After(a.quietFrom())) {
		a.saveNext = began.Add(interval)
		if err := store.WriteLastGood(a.lastGood, set); err != nil {
			return err
		}
		a.saved, a.saveNext = set, began.Add(time.Since(began)*easeSaving)
	}
	for _, kind := range keptDocs() {
		if err := a.saveDocs(kind); err != nil {
			return err
		}
	}
	return nil
}

// untilSave is how long until the policy may be written, at most the interval.
func (a *Agent) untilSave() time.Duration {
	if set, _ := a.state(); set == a.saved {
		return interval
	}
	return min(max(time.Until(a.saveNext), time.Until(a.quietFrom()), 0), interval)
}

func (a *Agent) saveDocs(kind string) error {
	docs, err := a.Docs(context.Background(), kind)
	if err != nil {
		return err
	}
	data, err := json.Marshal(docs)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(a.docsFile(kind)); err == nil && string(old) == string(data) {
		return nil
	}
	return store.WriteFile(a.docsFile(kind), data)
}

func (a *Agent) docsFile(kind string) string {
	return filepath.Join(filepath.Dir(a.lastGood), "last-good."+kind)
}

func readDocs(path string) (docs []store.Doc, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &docs)
	}
	return docs, err
}
