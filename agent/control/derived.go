package control

import (
	"net/netip"
	"time"

	"github.com/synward/synward/agent/policy"
)

// Kinds of what entries are derived from.
const (
	KindHost = "host" // the addresses of a DNS name
	KindSPF  = "spf"  // the sources of a domain's SPF record
	KindFeed = "feed" // a list that somebody else keeps
)

// Derived is a name or a feed, and how it stands.
type Derived struct {
	Kind     string        `json:"kind"`
	Name     string        `json:"name"`          // office.example.org, spf:partner.example, or a feed's
	URL      string        `json:"url,omitempty"` // of a feed
	Every    string        `json:"every,omitempty"`
	Action   policy.Action `json:"action"`
	Ports    []uint16      `json:"ports,omitempty"`
	Note     string        `json:"note,omitempty"`
	Expires  time.Time     `json:"expires,omitzero"`
	Prefixes int           `json:"prefixes"`        // in force
	Good     time.Time     `json:"good,omitzero"`   // when it was last had whole
	Next     time.Time     `json:"next,omitzero"`   // when it is asked for again
	Error    string        `json:"error,omitempty"` // why the last try brought nothing: what was good stays
	Held     string        `json:"held,omitempty"`  // why the last set waits for a yes
	Notes    []string      `json:"notes,omitempty"` // what could not be expanded or read
}

// DerivedList answers GET /v1/derived.
type DerivedList struct {
	Derived []Derived `json:"derived"`
}

// Resolved answers GET /v1/names/resolve?name=NAME: what the name stands for at
// this moment, whether an entry is of it or not.
type Resolved struct {
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Notes    []string       `json:"notes,omitempty"` // what could not be expanded
}

// AddNames is the body of POST /v1/names: entries for what the names stand for
// now and later on, all or none. Entry is what each is, without its prefix.
type AddNames struct {
	Names  []string     `json:"names"`
	Entry  policy.Entry `json:"entry"`
	Yes    bool         `json:"yes,omitempty"` // also where the growth guard holds it back
	Why    string       `json:"why,omitempty"`
	DryRun bool         `json:"dry_run,omitempty"`
	Kill   bool         `json:"kill,omitempty"`
}

// RemoveNames is the body of POST /v1/names/remove.
type RemoveNames struct {
	Action policy.Action `json:"action"`
	Names  []string      `json:"names"`
	Why    string        `json:"why,omitempty"`
	DryRun bool          `json:"dry_run,omitempty"`
	Kill   bool          `json:"kill,omitempty"`
}

// AddFeed is the body of POST /v1/feeds: a feed to add or change.
type AddFeed struct {
	Name   string       `json:"name"`
	URL    string       `json:"url"`             // https://… or an absolute path
	Every  string       `json:"every,omitempty"` // "1h"
	Entry  policy.Entry `json:"entry"`
	Yes    bool         `json:"yes,omitempty"`
	Why    string       `json:"why,omitempty"`
	DryRun bool         `json:"dry_run,omitempty"`
	Kill   bool         `json:"kill,omitempty"`
}

// RemoveFeeds is the body of POST /v1/feeds/remove.
type RemoveFeeds struct {
	Names  []string `json:"names"`
	Why    string   `json:"why,omitempty"`
	DryRun bool     `json:"dry_run,omitempty"`
	Kill   bool     `json:"kill,omitempty"`
}

// Refresh is the body of POST /v1/derived/refresh: what is to be asked for
// now. Without names it is all of the kind.
type Refresh struct {
	Feeds  bool          `json:"feeds,omitempty"`  // feeds, else names
	Action policy.Action `json:"action,omitempty"` // of names
	Names  []string      `json:"names,omitempty"`
	Yes    bool          `json:"yes,omitempty"`
	Why    string        `json:"why,omitempty"`
	DryRun bool          `json:"dry_run,omitempty"`
}
