package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/synward/synward/relay/quota"
)

// Quotas is what is counted; *quota.Book is one.
type Quotas interface {
	Keys() []string
	Usage(key string, l quota.Limits) (quota.Usage, quota.Verdict)
	Reset(key string)
}

// Limits say under which key a user or a relaying source is counted, and what
// it may hand in; false: there is none. *relay.Server has them.
type Limits interface {
	UserQuota(name string) (key string, l quota.Limits, ok bool)
	SourceQuota(source netip.Prefix) (key string, l quota.Limits)
}

// Quota is one user's or one relaying source's.
type Quota struct {
	User   string       `json:"user,omitempty"`
	Source string       `json:"source,omitempty"`
	Limits quota.Limits `json:"limits"`
	Used   quota.Usage  `json:"used"`
	Over   string       `json:"over,omitempty"` // the limit that is used up, in words
	Until  *time.Time   `json:"until,omitempty"`
}

// getQuota answers for the user or source of the query, or for all that have
// handed in anything within a day.
func (o Options) getQuota(w http.ResponseWriter, r *http.Request) {
	keys := []string{}
	if q := r.URL.Query(); q.Has("user") || q.Has("source") {
		key, err := o.quotaKey(q.Get("user"), q.Get("source"))
		if err != nil {
			refuse(w, http.StatusNotFound, err)
			return
		}
		keys = append(keys, key)
	} else {
		keys = o.Quotas.Keys()
	}
	all := []Quota{}
	for _, key := range keys {
		if q, ok := o.quota(key); ok {
			all = append(all, q)
		}
	}
	answer(w, map[string][]Quota{"quotas": all})
}

// resetQuota forgets what the user or source of the query has handed in.
func (o Options) resetQuota(w http.ResponseWriter, r *http.Request) {
	key, err := o.quotaKey(r.URL.Query().Get("user"), r.URL.Query().Get("source"))
	if err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	o.Quotas.Reset(key)
	o.Quotas.Reset("held " + key)
	answer(w, map[string]bool{"reset": true})
}

func (o Options) quotaKey(user, source string) (string, error) {
	if (user == "") == (source == "") {
		return "", errors.New("say whose quota: user or source")
	}
	if user != "" {
		key, _, ok := o.Limits.UserQuota(user)
		if !ok {
			return "", fmt.Errorf("no user %s; synward user list shows them", user)
		}
		return key, nil
	}
	p, err := netip.ParsePrefix(source)
	if a, aerr := netip.ParseAddr(source); aerr == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return "", fmt.Errorf("%q is neither an address nor a prefix", source)
	}
	key, _ := o.Limits.SourceQuota(p)
	return key, nil
}

// quota is that of a key; false for one that is neither a user's nor a source's.
func (o Options) quota(key string) (q Quota, ok bool) {
	kind, name, _ := strings.Cut(key, " ")
	switch kind {
	case "user":
		q.User = name
		_, q.Limits, ok = o.Limits.UserQuota(name)
	case "source":
		p, err := netip.ParsePrefix(name)
		if ok = err == nil; ok {
			q.Source = name
			_, q.Limits = o.Limits.SourceQuota(p)
		}
	}
	var v quota.Verdict
	if q.Used, v = o.Quotas.Usage(key, q.Limits); v.Over {
		q.Over, q.Until = v.String(), &v.Until
	}
	return q, ok
}
