package agent

import (
	"errors"
	"math"
	"time"

	"github.com/synward/synward/agent/feeds"
	"github.com/synward/synward/nameserver"
)

// NamesConfig is [names]: entries that are DNS names or SPF records.
type NamesConfig struct {
	Resolver []string `toml:"resolver" json:"resolver"` // name servers; none = those of /etc/resolv.conf
	MaxNew   int      `toml:"max_new" json:"max_new"`   // prefixes that may be new to a name without a yes; 0 = any number
}

// FeedsConfig is [feeds]: lists that somebody else keeps.
type FeedsConfig struct {
	MaxNew     int    `toml:"max_new" json:"max_new"`         // prefixes that may be new to a feed without a yes; 0 = any number
	MaxBytes   int64  `toml:"max_bytes" json:"max_bytes"`     // of a list
	MaxEntries int    `toml:"max_entries" json:"max_entries"` // prefixes of a list
	Timeout    string `toml:"timeout" json:"timeout"`         // for the whole of a fetch, "60s"
	Private    bool   `toml:"private" json:"private"`         // lists may come from loopback and private addresses
}

func defaultNames() NamesConfig { return NamesConfig{MaxNew: 100} }

func defaultFeeds() FeedsConfig {
	return FeedsConfig{MaxNew: 20_000, MaxBytes: 64 << 20, MaxEntries: 1_000_000, Timeout: "60s"}
}

// Options are the fetcher's, by a valid configuration.
func (c FeedsConfig) Options(userAgent string) feeds.Options {
	timeout, _ := c.timeout()
	return feeds.Options{MaxBytes: c.MaxBytes, MaxEntries: c.MaxEntries, Timeout: timeout, Private: c.Private, UserAgent: userAgent}
}

func (c FeedsConfig) timeout() (time.Duration, error) {
	d, err := time.ParseDuration(c.Timeout)
	if err != nil || d < time.Second || d > time.Hour {
		return 0, badKey("feeds.timeout", "%q is not a time from 1s to 1h", c.Timeout)
	}
	return d, nil
}

func (c NamesConfig) validate() error {
	var errs []error
	for _, s := range c.Resolver {
		if _, err := nameserver.ParseServer(s); err != nil {
			errs = append(errs, &KeyError{Key: "names.resolver", Err: err})
		}
	}
	return errors.Join(append(errs, inRange("names.max_new", int64(c.MaxNew), 0, math.MaxInt32))...)
}

func (c FeedsConfig) validate() error {
	_, err := c.timeout()
	return errors.Join(err,
		inRange("feeds.max_new", int64(c.MaxNew), 0, math.MaxInt32),
		inRange("feeds.max_bytes", c.MaxBytes, 1<<10, 1<<30),
		inRange("feeds.max_entries", int64(c.MaxEntries), 1, 2_000_000))
}

func inRange(key string, n, least, most int64) error {
	if n < least || n > most {
		return badKey(key, "%d is not from %d to %d", n, least, most)
	}
	return nil
}
