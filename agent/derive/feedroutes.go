package derive

import (
	"fmt"
	"net/http"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/feeds"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// How often a feed is asked for.
const (
	defaultEvery = time.Hour
	minEvery     = time.Minute
	maxEvery     = 30 * 24 * time.Hour
)

func (k *Keeper) addFeed(r *http.Request, h host) (any, error) {
	var req control.AddFeed
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	f := feed{Name: req.Name, URL: req.URL, Every: defaultEvery, Entry: template(req.Entry), Good: k.now().UTC().Round(0)}
	f.Entry.Origin, f.Entry.Feed, f.Entry.Name = policy.Feed, req.Name, ""
	err := policy.CheckFeedName(req.Name)
	if err == nil {
		err = feeds.Check(req.URL)
	}
	if err == nil && req.Every != "" {
		f.Every, err = policy.ParseTTL(req.Every)
		if err == nil && (f.Every < minEvery || f.Every > maxEvery) {
			err = fmt.Errorf("every %s: write 1m to 30d", req.Every)
		}
	}
	if err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "%w; nothing changed", err)
	}
	s := f.subject()
	if err := k.check(h, s); err != nil {
		return nil, err
	}
	f.Entry = s.entry
	d, err := f.doc()
	if err != nil {
		return nil, err
	}
	u := update(r, "feed add", req.Why, req.DryRun, req.Kill)
	u.PutDocs = []store.Doc{d}
	ans, err := k.replace(r.Context(), h, u, []*subject{s}, req.Yes)
	if err == nil && !req.DryRun {
		k.keepFeed(f.Name, &f)
	}
	return ans, err
}

// keepFeed remembers a feed as the store has it; nil = not any more.
func (k *Keeper) keepFeed(name string, f *feed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if delete(k.feeds, name); f != nil {
		k.feeds[name] = *f
	}
	k.index = nil
}

func (k *Keeper) removeFeeds(r *http.Request, h host) (any, error) {
	var req control.RemoveFeeds
	if err := control.Decode(r, &req); err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range req.Names {
		ids = append(ids, "feed "+n)
	}
	ans, err := k.remove(r.Context(), h, update(r, "feed remove", req.Why, req.DryRun, req.Kill), ids, req.Names)
	if err == nil && !req.DryRun {
		for _, n := range req.Names {
			k.keepFeed(n, nil)
		}
	}
	return ans, err
}
