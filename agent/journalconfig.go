package agent

import (
	"cmp"
	"errors"
)

// JournalConfig is [journal]: how much the agent remembers, beside the store.
type JournalConfig struct {
	Days     int   `toml:"days" json:"days"`         // of attempts
	Attempts int   `toml:"attempts" json:"attempts"` // kinds a day (source, port, verdict), of what passed and of what did not
	Events   int64 `toml:"events" json:"events"`     // bytes of single events
	History  int   `toml:"history" json:"history"`   // changes of the policy that operators made
}

func defaultJournal() JournalConfig {
	return JournalConfig{Days: 30, Attempts: 20_000, Events: 32 << 20, History: 1000}
}

// or fills in what a configuration that was made by hand leaves out.
func (c JournalConfig) or(o JournalConfig) JournalConfig {
	return JournalConfig{
		Days: cmp.Or(c.Days, o.Days), Attempts: cmp.Or(c.Attempts, o.Attempts),
		Events: cmp.Or(c.Events, o.Events), History: cmp.Or(c.History, o.History),
	}
}

func (c JournalConfig) validate() error {
	return errors.Join(
		inRange("journal.days", int64(c.Days), 1, 366),
		inRange("journal.attempts", int64(c.Attempts), 100, 1_000_000),
		inRange("journal.events", c.Events, 64<<10, 16<<30),
		inRange("journal.history", int64(c.History), 10, 100_000))
}
