package derive

import (
	"cmp"
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
	req.Entry.Feed = req.Name
	var every time.Duration
	var err error
	if req.Every != "" {
		every, err = policy.ParseTTL(req.Every)
	}
	var f feed
	if err == nil {
		f, err = k.newFeed(req.URL, every, req.Entry)
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
	k.reread()
	return ans, err
}

// newFeed is a feed, checked.
func (k *Keeper) newFeed(url string, every time.Duration, e policy.Entry) (feed, error) {
	f := feed{Name: e.Feed, URL: url, Every: cmp.Or(every, defaultEvery), Entry: template(e), Good: k.now().UTC().Round(0)}
	f.Entry.Origin, f.Entry.Name = policy.Feed, ""
	if err := policy.CheckFeedName(f.Name); err != nil {
		return f, err
	}
	if err := feeds.Check(url); err != nil {
		return f, err
	}
	if f.Every < minEvery || f.Every > maxEvery {
		return f, fmt.Errorf("every %s: write 1m to 30d", policy.FormatTTL(f.Every))
	}
	return f, nil
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
	k.reread()
	return ans, err
}
