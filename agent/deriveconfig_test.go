package agent

import (
	"errors"
	"testing"
)

func TestBadNamesFeedsAndJournal(t *testing.T) {
	for key, spoil := range map[string]func(*Config){
		"names.resolver":    func(c *Config) { c.Names.Resolver = []string{"ns.example"} },
		"names.max_new":     func(c *Config) { c.Names.MaxNew = -1 },
		"feeds.max_new":     func(c *Config) { c.Feeds.MaxNew = -1 },
		"feeds.max_bytes":   func(c *Config) { c.Feeds.MaxBytes = 10 << 30 },
		"feeds.max_entries": func(c *Config) { c.Feeds.MaxEntries = 0 },
		"feeds.timeout":     func(c *Config) { c.Feeds.Timeout = "soon" },
		"journal.days":      func(c *Config) { c.Journal.Days = 0 },
		"journal.attempts":  func(c *Config) { c.Journal.Attempts = 10_000_000 },
		"journal.events":    func(c *Config) { c.Journal.Events = 1 },
		"journal.history":   func(c *Config) { c.Journal.History = -1 },
	} {
		c := DefaultConfig()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&c)
		var bad *KeyError
		if err := c.Validate(); !errors.As(err, &bad) || bad.Key != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
