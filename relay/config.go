package relay

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/synward/synward/relay/account"
)

// The ways of TLS on a listener and towards a next hop.
const (
	TLSImplicit      = "implicit"      // TLS from the first byte (465)
	TLSStartTLS      = "starttls"      // listener: AUTH and mail only after STARTTLS
	TLSRequired      = "required"      // next hop: STARTTLS, verified, or no delivery
	TLSOpportunistic = "opportunistic" // next hop: STARTTLS where offered, unverified
	TLSNone          = "none"          // next hop: plain text
)

// Duration is a time.Duration that reads and writes as text: "5m".
type Duration time.Duration

// UnmarshalText reads a duration such as 90s, 5m or 120h.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q is not like 90s, 5m or 120h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the duration as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Config is the [relay] section of the configuration file.
type Config struct {
	Enabled       bool              `toml:"enabled"`
	Hostname      string            `toml:"hostname"` // our name in greetings and trace headers
	Listen        []ListenConfig    `toml:"listen"`
	TLS           TLSFiles          `toml:"tls"`
	ACME          ACMEConfig        `toml:"acme"`
	User          string            `toml:"user"`  // whom the relay runs as
	Spool         string            `toml:"spool"` // the queue's folder
	Smarthost     []SmarthostConfig `toml:"smarthost"`
	MaxSize       int64             `toml:"max_size"`       // bytes of a message
	MaxRecipients int               `toml:"max_recipients"` // of a message
	Scram         bool              `toml:"scram"`          // offer SCRAM-SHA-256, and keep a credential for it
	RelayDomains  []string          `toml:"relay_domains"`  // that anybody may send to, on port 25
	Retry         RetryConfig       `toml:"retry"`
	MX            MXConfig          `toml:"mx"`
	Route         []RouteConfig     `toml:"route"`
	DKIM          []DKIMConfig      `toml:"dkim"`
	Limits        LimitsConfig      `toml:"limits"`
	Quota         QuotaConfig       `toml:"quota"`
}

// ListenConfig is one listener.
type ListenConfig struct {
	Port    uint16 `toml:"port"`
	Address string `toml:"address"` // empty: every address, IPv4 and IPv6
	TLS     string `toml:"tls"`     // starttls | implicit
}

// TLSFiles names the certificate chain and its key, both in PEM.
type TLSFiles struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// SmarthostConfig is one next hop; they are tried in the order given.
type SmarthostConfig struct {
	Host         string `toml:"host"`
	Port         uint16 `toml:"port"` // 0: 465 with implicit TLS, 587 with a user, else 25
	TLS          string `toml:"tls"`  // required (default) | implicit | opportunistic | none
	CA           string `toml:"ca"`   // PEM file; empty: the system's roots
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	Forward      string `toml:"forward"` // xclient | proxy: tell a server of our own who the client was
}

// RetryConfig says how a deferred item is tried again. Zero: the default.
type RetryConfig struct {
	Min    Duration `toml:"min" json:"min,omitempty"`       // first wait
	Max    Duration `toml:"max" json:"max,omitempty"`       // longest wait
	Expire Duration `toml:"expire" json:"expire,omitempty"` // then it bounces
}

// LimitsConfig bounds the sessions. Zero: the default.
type LimitsConfig struct {
	Sessions          int `toml:"sessions"`            // at once
	SessionsPerSource int `toml:"sessions_per_source"` // at once from one source
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{
		Listen:        []ListenConfig{{Port: 587, TLS: TLSStartTLS}, {Port: 465, TLS: TLSImplicit}},
		User:          "synward-relay",
		Spool:         "/var/spool/synward",
		MaxSize:       defaultMaxSize,
		MaxRecipients: defaultMaxRecipients,
	}
}

var hostnameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)

// Validate says what is wrong with c, naming the key. A section that is not
// enabled is valid as it is.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	if err := validHostname(c.Hostname); err != nil {
		return fmt.Errorf("relay.hostname: %w", err)
	}
	if err := c.validateListen(); err != nil {
		return err
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return fmt.Errorf("relay.tls: cert and key belong together: set both, or neither for a self-signed certificate")
	}
	if err := c.validateACME(); err != nil {
		return fmt.Errorf("relay.%w", err)
	}
	if c.User == "" {
		return fmt.Errorf("relay.user: is empty: name an unprivileged user, such as synward-relay")
	}
	if c.User == "root" {
		return fmt.Errorf("relay.user: the relay does not run as root: name an unprivileged user")
	}
	if !filepath.IsAbs(c.Spool) {
		return fmt.Errorf("relay.spool: %q is not an absolute path", c.Spool)
	}
	for i, d := range c.RelayDomains {
		if err := account.ValidateDomain(d); err != nil {
			return fmt.Errorf("relay.relay_domains[%d]: %w", i, err)
		}
	}
	if err := c.validateOnward(); err != nil {
		return err
	}
	if err := c.Quota.validate(); err != nil {
		return fmt.Errorf("relay.quota.%w", err)
	}
	return c.validateNumbers()
}

func (c Config) validateListen() error {
	if len(c.Listen) == 0 {
		return fmt.Errorf("relay.listen: is empty: add { port = 587, tls = \"starttls\" }")
	}
	seen := map[string]int{}
	for i, l := range c.Listen {
		if l.Port == 0 {
			return fmt.Errorf("relay.listen[%d].port: is missing: use 25, 465 or 587", i)
		}
		if l.TLS != TLSStartTLS && l.TLS != TLSImplicit {
			return fmt.Errorf("relay.listen[%d].tls: %q is neither starttls nor implicit", i, l.TLS)
		}
		if l.Address != "" {
			if _, err := netip.ParseAddr(l.Address); err != nil {
				return fmt.Errorf("relay.listen[%d].address: %q is not an IP address", i, l.Address)
			}
		}
		key := fmt.Sprintf("%s %d", l.Address, l.Port)
		if j, dup := seen[key]; dup {
			return fmt.Errorf("relay.listen[%d].port: %d is listened on by relay.listen[%d] already", i, l.Port, j)
		}
		seen[key] = i
	}
	return nil
}

func (c Config) validateNumbers() error {
	for _, n := range []struct {
		key           string
		v, least, top int64
	}{
		{"max_size", c.MaxSize, 1024, 1 << 31},
		{"max_recipients", int64(c.MaxRecipients), 100, 10000},
		{"limits.sessions", int64(c.Limits.Sessions), 0, 1 << 20},
		{"limits.sessions_per_source", int64(c.Limits.SessionsPerSource), 0, 1 << 20},
		{"retry.min", int64(c.Retry.Min), 0, int64(24 * time.Hour)},
		{"retry.max", int64(c.Retry.Max), 0, int64(7 * 24 * time.Hour)},
		{"retry.expire", int64(c.Retry.Expire), 0, int64(60 * 24 * time.Hour)},
	} {
		if n.v < n.least || n.v > n.top {
			return fmt.Errorf("relay.%s: %d is not between %d and %d", n.key, n.v, n.least, n.top)
		}
	}
	for key, d := range map[string]Duration{"min": c.Retry.Min, "max": c.Retry.Max, "expire": c.Retry.Expire} {
		if d > 0 && d < Duration(time.Second) { // a number without a unit, which TOML takes for nanoseconds
			return fmt.Errorf("relay.retry.%s: is shorter than a second: write it such as \"90s\" or \"5m\"", key)
		}
	}
	if c.Retry.Max > 0 && c.Retry.Min > c.Retry.Max {
		return fmt.Errorf("relay.retry.min: is longer than relay.retry.max")
	}
	return nil
}

func (h SmarthostConfig) validate() error {
	if err := validForward(h.Forward); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(h.Host); err != nil && validHostname(h.Host) != nil {
		return fmt.Errorf("host: %q is neither a host name nor an IP address", h.Host)
	}
	switch h.TLS {
	case "", TLSRequired, TLSOpportunistic, TLSImplicit, TLSNone:
	default:
		return fmt.Errorf("tls: %q is not one of required, implicit, opportunistic, none", h.TLS)
	}
	if (h.User == "") != (h.PasswordFile == "") {
		return fmt.Errorf("user: user and password_file belong together: set both or neither")
	}
	if h.User != "" && (h.TLS == TLSNone || h.TLS == TLSOpportunistic) {
		return fmt.Errorf("tls: %q would show the password to anybody on the way: use required or implicit", h.TLS)
	}
	return nil
}

// validHostname accepts a host name in ASCII of at most 253 bytes.
func validHostname(s string) error {
	if s == "" {
		return fmt.Errorf("is missing: set it to this host's full name, such as mail.example.net")
	}
	if len(s) > 253 || !hostnameForm.MatchString(s) {
		return fmt.Errorf("%q is not a host name such as mail.example.net", s)
	}
	return nil
}
