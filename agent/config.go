package agent

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// Config is the agent's part of the configuration file.
type Config struct {
	Filter  FilterConfig          `toml:"filter" json:"filter"`
	Ports   map[string]PortConfig `toml:"ports" json:"ports"` // by number; none at all = 25, 465 and 587
	Caps    CapsConfig            `toml:"caps" json:"caps"`
	Store   StoreConfig           `toml:"store" json:"store"`
	Control ControlConfig         `toml:"control" json:"control"`
	Names   NamesConfig           `toml:"names" json:"names"`
	Feeds   FeedsConfig           `toml:"feeds" json:"feeds"`
	Journal JournalConfig         `toml:"journal" json:"journal"`
}

// FilterConfig is [filter].
type FilterConfig struct {
	Interfaces []string    `toml:"interfaces" json:"interfaces"` // names, globs or "auto"
	Attach     loader.Mode `toml:"attach" json:"attach"`
	Mode       string      `toml:"mode" json:"mode"` // enforce or observe
	PinDir     string      `toml:"pin_dir" json:"pin_dir"`
}

// PortConfig is [ports.N]. What is empty takes its default.
type PortConfig struct {
	Default string `toml:"default" json:"default"`         // drop or pass
	Mode    string `toml:"mode" json:"mode,omitempty"`     // enforce or observe; default: [filter].mode
	Filter  string `toml:"filter" json:"filter,omitempty"` // syn, or all segments of a source that may not connect
	Refuse  string `toml:"refuse" json:"refuse,omitempty"` // drop in silence, or reset
	Server  string `toml:"server" json:"server,omitempty"` // local, or elsewhere: this host only forwards
}

// CapsConfig is [caps]: what a source may where its entry sets nothing.
type CapsConfig struct {
	Connections uint32 `toml:"connections" json:"connections"` // at once; 0 = no cap
	Rate        string `toml:"rate" json:"rate"`               // new ones, "20/s"; "0" = no cap
	Burst       uint32 `toml:"burst" json:"burst"`
	IPv6Prefix  int    `toml:"ipv6_prefix" json:"ipv6_prefix"` // bits that make a source
}

// StoreConfig is [store].
type StoreConfig struct {
	Path string `toml:"path" json:"path"`
}

// ControlConfig is [control].
type ControlConfig struct {
	Socket string `toml:"socket" json:"socket"`
	Group  string `toml:"group" json:"group"` // whose members may use it
}

// Where things are by default.
const (
	DefaultConfigFile = "/etc/synward/synward.toml"
	DefaultSocket     = "/run/synward/synward.sock"
	DefaultPinDir     = "/sys/fs/bpf/synward"
	DefaultStore      = "/var/lib/synward/store.db"
	DefaultGroup      = "synward"
)

// DefaultConfig is what a file starts from: it says only what differs.
func DefaultConfig() Config {
	return Config{
		Filter:  FilterConfig{Interfaces: []string{"auto"}, Attach: loader.Auto, Mode: "enforce", PinDir: DefaultPinDir},
		Caps:    CapsConfig{Connections: 50, Rate: "20/s", Burst: 40, IPv6Prefix: 64},
		Store:   StoreConfig{Path: DefaultStore},
		Control: ControlConfig{Socket: DefaultSocket, Group: DefaultGroup},
		Names:   defaultNames(),
		Feeds:   defaultFeeds(),
		Journal: defaultJournal(),
	}
}

// KeyError is a bad value in the configuration. Key is its path in the file.
type KeyError struct {
	Key string
	Err error
}

// Error is "key: what is wrong with it".
func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap is the error without the key.
func (e *KeyError) Unwrap() error { return e.Err }

func badKey(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

// Validate says what is wrong, a KeyError for each, joined.
func (c Config) Validate() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(c.Filter.validate())
	add(c.Names.validate())
	add(c.Feeds.validate())
	add(c.Journal.validate())
	_, err := c.ports()
	add(err)
	_, err = c.Caps.compile()
	add(err)
	add(absolute("filter.pin_dir", c.Filter.PinDir))
	add(absolute("store.path", c.Store.Path))
	add(absolute("control.socket", c.Control.Socket))
	if len(c.Control.Socket) > 100 {
		add(badKey("control.socket", "a socket's path may be 100 bytes long, this has %d", len(c.Control.Socket)))
	}
	return errors.Join(errs...)
}

func absolute(key, p string) error {
	if !filepath.IsAbs(p) {
		return badKey(key, "%q is not an absolute path", p)
	}
	return nil
}

func (f FilterConfig) validate() error {
	if len(f.Interfaces) == 0 {
		return badKey("filter.interfaces", `name at least one interface, or "auto"`)
	}
	for _, n := range f.Interfaces {
		if _, err := path.Match(n, ""); err != nil || n == "" {
			return badKey("filter.interfaces", "%q is neither a name nor a glob", n)
		}
	}
	switch f.Attach {
	case loader.Auto, loader.Native, loader.Generic, loader.TCX:
	default:
		return badKey("filter.attach", "%q is not one of auto, native, generic, tcx", f.Attach)
	}
	if f.Mode != "enforce" && f.Mode != "observe" {
		return badKey("filter.mode", "%q is not one of enforce, observe", f.Mode)
	}
	return nil
}

// ports are the protected ports, by number.
func (c Config) ports() ([]rule.Port, error) {
	if len(c.Ports) == 0 {
		c.Ports = map[string]PortConfig{"25": {}, "465": {}, "587": {}}
	}
	if len(c.Ports) > rule.MaxPorts {
		return nil, badKey("ports", "%d ports are too many; at most %d", len(c.Ports), rule.MaxPorts)
	}
	var out []rule.Port
	for name, p := range c.Ports {
		key := "ports." + name
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != name {
			return nil, badKey(key, "%q is not a port from 1 to 65535", name)
		}
		port, err := p.compile(key, uint16(n), c.Filter.Mode)
		if err != nil {
			return nil, err
		}
		out = append(out, port)
	}
	slices.SortFunc(out, func(a, b rule.Port) int { return cmp.Compare(a.Number, b.Number) })
	return out, nil
}

// compile turns a port's section into what the filter knows of it. mode is
// [filter].mode.
func (p PortConfig) compile(key string, number uint16, mode string) (rule.Port, error) {
	for _, k := range []struct {
		name, value string
		words       [2]string
	}{
		{"default", p.Default, [2]string{"drop", "pass"}}, {"mode", p.Mode, [2]string{"enforce", "observe"}},
		{"filter", p.Filter, [2]string{"syn", "all"}}, {"refuse", p.Refuse, [2]string{"drop", "reset"}},
		{"server", p.Server, [2]string{"local", "elsewhere"}},
	} {
		if k.value != "" && !slices.Contains(k.words[:], k.value) {
			return rule.Port{}, badKey(key+"."+k.name, "%q is not one of %s, %s", k.value, k.words[0], k.words[1])
		}
	}
	port := rule.Port{Number: number, Default: rule.Drop, All: p.Filter == "all", Reset: p.Refuse == "reset", Forward: p.Server == "elsewhere"}
	if p.Default == "pass" {
		port.Default = rule.Pass
	}
	port.Observe = cmp.Or(p.Mode, mode) == "observe"
	return port, nil
}

// rate reads the text form; "" and "0" are no cap.
func (c CapsConfig) rate() (policy.Rate, error) {
	var r policy.Rate
	if c.Rate == "" || c.Rate == "0" {
		return r, nil
	}
	if err := r.UnmarshalText([]byte(c.Rate)); err != nil {
		return r, &KeyError{Key: "caps.rate", Err: err}
	}
	return r, nil
}
