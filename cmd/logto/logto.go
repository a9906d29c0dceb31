// Package logto makes the logger of both programs: where lines go, in which
// form, and from which level on. The agent reads it from [log] in the
// configuration and hands it to the relay in the environment.
package logto

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// Env is the environment variable in which the agent tells the relay.
const Env = "SYNWARD_LOG"

// The forms of a log.
const (
	Text    = "text"    // key=value on stderr
	JSON    = "json"    // one object a line on stderr
	Journal = "journal" // systemd's journal, each key a field of its own
)

// Config is [log].
type Config struct {
	Format string `toml:"format" json:"format"`
	Level  string `toml:"level" json:"level"`
}

// Default is what holds where nothing is set.
func Default() Config { return Config{Format: Text, Level: "info"} }

// Validate says what is wrong, after the key.
func (c Config) Validate() error {
	if !slices.Contains([]string{Text, JSON, Journal}, c.Format) {
		return fmt.Errorf("log.format: %q is none of text, json, journal", c.Format)
	}
	_, err := c.level()
	return err
}

func (c Config) level() (slog.Level, error) {
	i := slices.Index([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.Level))
	if i < 0 {
		return 0, fmt.Errorf("log.level: %q is none of debug, info, warn, error", c.Level)
	}
	return slog.LevelDebug + slog.Level(4*i), nil
}

// Open makes the logger. Where the journal cannot be reached the lines go to
// stderr as text, and the first of them says so.
func (c Config) Open(stderr io.Writer) (*slog.Logger, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	level, _ := c.level()
	switch c.Format {
	case JSON:
		return slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: plainValues})), nil
	case Journal:
		h, err := newJournal(level)
		if err == nil {
			return slog.New(h), nil
		}
		log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
		log.Warn("the journal cannot be reached: the log goes to stderr", "error", err)
		return log, nil
	}
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})), nil
}

// plainValues makes durations readable: JSON would have them in nanoseconds.
func plainValues(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Environ is the line for the relay's environment.
func (c Config) Environ() string { return Env + "=" + c.Format + "," + c.Level }

// FromEnv reads what Environ wrote, without the variable's name. Empty is the
// default, as for a relay that is started by hand or by an older agent.
func FromEnv(value string) (Config, error) {
	if value == "" {
		return Default(), nil
	}
	var c Config
	c.Format, c.Level, _ = strings.Cut(value, ",")
	return c, c.Validate()
}
