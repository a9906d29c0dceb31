package relay

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/acme"
)

// Settings is the whole state that the relay should have, as the agent sends
// it. It holds secrets: it goes over the admin socket only and never to a log.
type Settings struct {
	Hostname     string            `json:"hostname"`
	TLS          TLSSettings       `json:"tls"`
	ACME         *acme.Config      `json:"acme,omitempty"` // get a certificate, instead of TLS
	Accounts     []account.Account `json:"accounts"`
	Scram        bool              `json:"scram,omitempty"` // offer SCRAM-SHA-256
	Smarthosts   []Smarthost       `json:"smarthosts"`
	Limits       Limits            `json:"limits"`
	Retry        RetryConfig       `json:"retry"`
	MX           MXConfig          `json:"mx,omitzero"`
	Routes       []Route           `json:"routes,omitempty"`
	DKIM         []DKIMKey         `json:"dkim,omitempty"`
	Quota        QuotaConfig       `json:"quota,omitzero"`
	RelayDomains []string          `json:"relay_domains,omitempty"` // domains that anybody may send to, on port 25
	Peers        []Peer            `json:"peers,omitempty"`         // sources that may relay without AUTH
}

// TLSSettings is the certificate chain and its key in PEM. Both empty: the
// relay makes a self-signed one in memory, and says so in its status.
type TLSSettings struct {
	CertPEM string `json:"cert_pem,omitempty"`
	KeyPEM  string `json:"key_pem,omitempty"`
}

// Smarthost is one next hop.
type Smarthost struct {
	Host     string `json:"host"`
	Port     uint16 `json:"port"`
	TLS      string `json:"tls"`
	CAPEM    string `json:"ca_pem,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Forward  string `json:"forward,omitempty"`
}

// Peer is a source with the relay right.
type Peer struct {
	Prefix  netip.Prefix `json:"prefix"`
	Name    string       `json:"name"`
	Senders []string     `json:"senders,omitempty"` // as an account's
	Ports   []uint16     `json:"ports,omitempty"`   // that it may relay on; empty: all
	Except  []uint16     `json:"except,omitempty"`  // ports that it may not relay on
}

// The defaults of Limits.
const (
	defaultMaxSize       = 50 << 20
	defaultMaxRecipients = 1000
	defaultSessions      = 5000
	defaultPerSource     = 100
	defaultCommand       = 5 * time.Minute
	defaultHandshake     = 30 * time.Second
	defaultSession       = 30 * time.Minute
	defaultAuthDelay     = 500 * time.Millisecond
)

// Limits bounds what a session may use. Zero: the default.
type Limits struct {
	MaxSize           int64    `json:"max_size,omitempty"`            // bytes of a message
	MaxRecipients     int      `json:"max_recipients,omitempty"`      // of a message
	Sessions          int      `json:"sessions,omitempty"`            // at once
	SessionsPerSource int      `json:"sessions_per_source,omitempty"` // at once from one source
	Command           Duration `json:"command,omitempty"`             // to send one command line, or a block of a message
	Handshake         Duration `json:"handshake,omitempty"`           // of TLS
	Session           Duration `json:"session,omitempty"`             // without an accepted message
	AuthDelay         Duration `json:"auth_delay,omitempty"`          // before a failed login is answered
}

func (l Limits) withDefaults() Limits {
	l.MaxSize = orDefault(l.MaxSize, defaultMaxSize)
	l.MaxRecipients = orDefault(l.MaxRecipients, defaultMaxRecipients)
	l.Sessions = orDefault(l.Sessions, defaultSessions)
	l.SessionsPerSource = orDefault(l.SessionsPerSource, defaultPerSource)
	l.Command = orDefault(l.Command, Duration(defaultCommand))
	l.Handshake = orDefault(l.Handshake, Duration(defaultHandshake))
	l.Session = orDefault(l.Session, Duration(defaultSession))
	l.AuthDelay = orDefault(l.AuthDelay, Duration(defaultAuthDelay))
	return l
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Settings reads the files that c names and returns what to send to the relay.
// It runs in the agent's process; an error names the key and the file.
func (c Config) Settings(accounts []account.Account) (Settings, error) {
	s := Settings{Hostname: c.Hostname, Accounts: accounts, Scram: c.Scram, Retry: c.Retry, RelayDomains: c.RelayDomains, Quota: c.Quota}
	s.Limits = Limits{
		MaxSize: c.MaxSize, MaxRecipients: c.MaxRecipients,
		Sessions: c.Limits.Sessions, SessionsPerSource: c.Limits.SessionsPerSource,
	}
	var err error
	if s.TLS.CertPEM, err = readFile("relay.tls.cert", c.TLS.Cert); err != nil {
		return Settings{}, err
	}
	if s.TLS.KeyPEM, err = readFile("relay.tls.key", c.TLS.Key); err != nil {
		return Settings{}, err
	}
	ca, err := readFile("relay.acme.ca", c.ACME.CA)
	if err != nil {
		return Settings{}, err
	}
	s.ACME = c.ACME.settings(c.Hostname, ca)
	if err := c.onward(&s); err != nil {
		return Settings{}, err
	}
	if _, err := s.compile(); err != nil {
		return Settings{}, fmt.Errorf("relay: %w", err)
	}
	return s, nil
}

func (h SmarthostConfig) defaultPort() uint16 {
	switch {
	case h.TLS == TLSImplicit:
		return 465
	case h.User != "":
		return 587
	}
	return 25
}

// readFile returns the content of the file that key names, or "" for no file.
func readFile(key, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w; name a file that root can read", key, err)
	}
	return string(b), nil
}

// Hash is a short name of these settings: equal settings have equal hashes.
func (s Settings) Hash() string {
	b, err := json.Marshal(s)
	if err != nil { // no field of Settings can fail to marshal
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
