package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/loader/rule"
)

func TestBadConfig(t *testing.T) {
	for key, spoil := range map[string]func(*Config){
		"filter.interfaces": func(c *Config) { c.Filter.Interfaces = nil },
		"filter.attach":     func(c *Config) { c.Filter.Attach = "fast" },
		"filter.mode":       func(c *Config) { c.Filter.Mode = "off" },
		"filter.pin_dir":    func(c *Config) { c.Filter.PinDir = "pins" },
		"ports.0":           func(c *Config) { c.Ports = map[string]PortConfig{"0": {}} },
		"ports.smtp":        func(c *Config) { c.Ports = map[string]PortConfig{"smtp": {}} },
		"ports.25.default":  func(c *Config) { c.Ports = map[string]PortConfig{"25": {Default: "maybe"}} },
		"ports.25.mode":     func(c *Config) { c.Ports = map[string]PortConfig{"25": {Mode: "off"}} },
		"ports.25.filter":   func(c *Config) { c.Ports = map[string]PortConfig{"25": {Filter: "ack"}} },
		"ports.25.refuse":   func(c *Config) { c.Ports = map[string]PortConfig{"25": {Refuse: "icmp"}} },
		"caps.rate":         func(c *Config) { c.Caps.Rate = "20" },
		"caps.ipv6_prefix":  func(c *Config) { c.Caps.IPv6Prefix = 129 },
		"store.path":        func(c *Config) { c.Store.Path = "" },
		"control.socket":    func(c *Config) { c.Control.Socket = "/" + strings.Repeat("x", 120) },
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

func TestPortKeys(t *testing.T) {
	c := DefaultConfig()
	c.Ports = map[string]PortConfig{
		"25":  {Default: "pass", Mode: "observe", Filter: "all", Refuse: "reset"},
		"587": {Default: "drop", Mode: "enforce", Filter: "syn", Refuse: "drop"},
		"465": {},
	}
	for mode, observed := range map[string]bool{"enforce": false, "observe": true} {
		c.Filter.Mode = mode
		p, err := c.plan()
		if err != nil {
			t.Fatal(err)
		}
		want := []rule.Port{
			{Number: 25, Default: rule.Pass, Observe: true, All: true, Reset: true},
			{Number: 465, Default: rule.Drop, Observe: observed},
			{Number: 587, Default: rule.Drop},
		}
		if diff := cmp.Diff(want, p.ports); diff != "" {
			t.Errorf("filter.mode %s: %s", mode, diff)
		}
	}
}
