package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/synward/synward/relay/dkim"
)

// The ways of telling a next hop of one's own who the client was.
const (
	ForwardXCLIENT = "xclient"
	ForwardPROXY   = "proxy"
)

// MXConfig says how mail goes to the domains' own servers, in the file and in
// Settings.
type MXConfig struct {
	Enabled  bool     `toml:"enabled" json:"enabled,omitempty"`   // so goes what no smarthost and no route takes
	Resolver []string `toml:"resolver" json:"resolver,omitempty"` // name servers; empty: /etc/resolv.conf
	NoIPv6   bool     `toml:"no_ipv6" json:"no_ipv6,omitempty"`
	NoMTASTS bool     `toml:"no_mta_sts" json:"no_mta_sts,omitempty"` // RFC 8461
	NoDANE   bool     `toml:"no_dane" json:"no_dane,omitempty"`       // RFC 7672; takes name servers on this host
}

// RouteConfig is the way of some domains: by MX, or next hops of their own.
type RouteConfig struct {
	Domains   []string          `toml:"domains"` // example.org; .example.org is all below it
	MX        bool              `toml:"mx"`
	Smarthost []SmarthostConfig `toml:"smarthost"`
}

// Route is a RouteConfig in Settings.
type Route struct {
	Domains    []string    `json:"domains"`
	MX         bool        `json:"mx,omitempty"`
	Smarthosts []Smarthost `json:"smarthosts,omitempty"`
}

// DKIMConfig is a key that mail from a domain is signed with.
type DKIMConfig struct {
	Domain   string `toml:"domain"`
	Selector string `toml:"selector"`
	Key      string `toml:"key"` // PEM file, from synward dkim keygen
}

// DKIMKey is a DKIMConfig in Settings.
type DKIMKey struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	KeyPEM   string `json:"key_pem"`
}

// validateOnward checks where mail goes, and the keys that sign it.
func (c Config) validateOnward() error {
	for i, h := range c.Smarthost {
		if err := h.validate(); err != nil {
			return fmt.Errorf("relay.smarthost[%d].%w", i, err)
		}
	}
	if err := c.MX.validate(); err != nil {
		return fmt.Errorf("relay.mx.%w", err)
	}
	var routes []Route
	for i, r := range c.Route {
		for j, h := range r.Smarthost {
			if err := h.validate(); err != nil {
				return fmt.Errorf("relay.route[%d].smarthost[%d].%w", i, j, err)
			}
		}
		routes = append(routes, Route{Domains: r.Domains, MX: r.MX, Smarthosts: make([]Smarthost, len(r.Smarthost))})
	}
	if err := validateRoutes(routes); err != nil {
		return fmt.Errorf("relay.route%w", err)
	}
	for i, d := range c.DKIM {
		if err := validHostname(d.Domain); err != nil {
			return fmt.Errorf("relay.dkim[%d].domain: %w", i, err)
		}
		if err := validHostname(d.Selector); err != nil {
			return fmt.Errorf("relay.dkim[%d].selector: %q is not a selector such as s2027", i, d.Selector)
		}
		if d.Key == "" {
			return fmt.Errorf("relay.dkim[%d].key: is missing: make one with synward dkim keygen %s", i, d.Domain)
		}
	}
	return nil
}

func (m MXConfig) validate() error {
	for i, s := range m.Resolver {
		_, err := netip.ParseAddr(s)
		if _, err2 := netip.ParseAddrPort(s); err != nil && err2 != nil {
			return fmt.Errorf("resolver[%d]: %q is not an IP address, with or without a port", i, s)
		}
	}
	return nil
}

// validateRoutes begins its errors with the index.
func validateRoutes(routes []Route) error {
	seen := map[string]int{}
	for i, r := range routes {
		if r.MX == (len(r.Smarthosts) > 0) {
			return fmt.Errorf("[%d].mx: a route has either mx = true or a smarthost", i)
		}
		if len(r.Domains) == 0 {
			return fmt.Errorf("[%d].domains: is empty: name a domain, such as example.org", i)
		}
		for j, d := range r.Domains {
			if validHostname(strings.TrimPrefix(d, ".")) != nil {
				return fmt.Errorf("[%d].domains[%d]: %q is not a domain such as example.org, or .example.org for all below it (one that is not ASCII in its xn-- form)", i, j, d)
			}
			key := strings.ToLower(d)
			if other, dup := seen[key]; dup {
				return fmt.Errorf("[%d].domains[%d]: %s is in route[%d] already", i, j, d, other)
			}
			seen[key] = i
		}
	}
	return nil
}

// onward reads the files of next hops and keys into s.
func (c Config) onward(s *Settings) error {
	var err error
	s.MX = c.MX
	if s.Smarthosts, err = smarthosts("relay.", c.Smarthost); err != nil {
		return err
	}
	for i, r := range c.Route {
		hops, err := smarthosts(fmt.Sprintf("relay.route[%d].", i), r.Smarthost)
		if err != nil {
			return err
		}
		s.Routes = append(s.Routes, Route{Domains: r.Domains, MX: r.MX, Smarthosts: hops})
	}
	for i, d := range c.DKIM {
		pem, err := readFile(fmt.Sprintf("relay.dkim[%d].key", i), d.Key)
		if err != nil {
			return err
		}
		s.DKIM = append(s.DKIM, DKIMKey{Domain: d.Domain, Selector: d.Selector, KeyPEM: pem})
	}
	return nil
}

func smarthosts(key string, list []SmarthostConfig) (hops []Smarthost, err error) {
	for i, h := range list {
		hop := Smarthost{Host: h.Host, Port: h.Port, TLS: orDefault(h.TLS, TLSRequired), User: h.User, Forward: h.Forward}
		hop.Port = orDefault(hop.Port, h.defaultPort())
		if hop.CAPEM, err = readFile(fmt.Sprintf("%ssmarthost[%d].ca", key, i), h.CA); err != nil {
			return nil, err
		}
		if hop.Password, err = readFile(fmt.Sprintf("%ssmarthost[%d].password_file", key, i), h.PasswordFile); err != nil {
			return nil, err
		}
		hop.Password = strings.TrimRight(hop.Password, "\r\n")
		hops = append(hops, hop)
	}
	return hops, nil
}

// checkOnward is validateOnward for what has come as Settings.
func (s Settings) checkOnward() error {
	for i, h := range s.Smarthosts {
		if err := h.validate(); err != nil {
			return fmt.Errorf("smarthosts[%d].%w", i, err)
		}
	}
	if err := s.MX.validate(); err != nil {
		return fmt.Errorf("mx.%w", err)
	}
	if err := validateRoutes(s.Routes); err != nil {
		return fmt.Errorf("routes%w", err)
	}
	for i, r := range s.Routes {
		for j, h := range r.Smarthosts {
			if err := h.validate(); err != nil {
				return fmt.Errorf("routes[%d].smarthosts[%d].%w", i, j, err)
			}
		}
	}
	_, err := s.Signer()
	return err
}

// Signer returns what signs mail with the keys in s.
func (s Settings) Signer() (*dkim.Signer, error) {
	keys := make([]dkim.Key, 0, len(s.DKIM))
	for i, k := range s.DKIM {
		private, err := dkim.ParseKey([]byte(k.KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("dkim[%d].key: %w; make one with synward dkim keygen %s", i, err, k.Domain)
		}
		if validHostname(k.Domain) != nil || validHostname(k.Selector) != nil {
			return nil, fmt.Errorf("dkim[%d]: %q, selector %q: bad name", i, k.Domain, k.Selector)
		}
		keys = append(keys, dkim.Key{Domain: k.Domain, Selector: k.Selector, Private: private})
	}
	return dkim.NewSigner(keys), nil
}

// validForward checks the way of telling a next hop about the client.
func validForward(s string) error {
	switch s {
	case "", ForwardXCLIENT, ForwardPROXY:
		return nil
	}
	return errors.New("forward: " + s + " is neither xclient nor proxy")
}
