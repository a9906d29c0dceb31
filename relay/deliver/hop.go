package deliver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// TLSMode is how a connection to a next hop is protected.
type TLSMode string

// The modes. The empty one is Required.
const (
	Required      TLSMode = "required"      // STARTTLS, verified, or no delivery
	Implicit      TLSMode = "implicit"      // TLS from the first octet, verified (RFC 8314)
	Opportunistic TLSMode = "opportunistic" // STARTTLS where offered, not verified (RFC 7435)
	Plain         TLSMode = "none"
)

// Hop is a next hop. It is comparable: connections are shared by equal hops.
type Hop struct {
	Host     string // name or address; the name is what the certificate must be for
	Port     int    // 0: 465 for Implicit, else 587 with a user and 25 without
	TLS      TLSMode
	CA       string // PEM of the roots to trust instead of the system's
	User     string // empty: no AUTH
	Password string
}

// Address returns host:port.
func (h Hop) Address() string {
	port := h.Port
	switch {
	case port != 0:
	case h.TLS == Implicit:
		port = 465
	case h.User != "":
		port = 587
	default:
		port = 25
	}
	return net.JoinHostPort(h.Host, strconv.Itoa(port))
}

// Validate says what is wrong with a hop, in words for an operator.
func (h Hop) Validate() error {
	switch h.TLS {
	case "", Required, Implicit, Opportunistic, Plain:
	default:
		return fmt.Errorf("next hop %s: tls %q: want required, implicit, opportunistic or none", h.Host, h.TLS)
	}
	switch {
	case h.Host == "":
		return errors.New("next hop: no host")
	case h.Port < 0 || h.Port > 65535:
		return fmt.Errorf("next hop %s: port %d: want 1 to 65535", h.Host, h.Port)
	case h.User != "" && !h.verified():
		return fmt.Errorf("next hop %s: a password needs tls required or implicit, not %q", h.Host, h.TLS)
	}
	_, err := h.tlsConfig()
	return err
}

// verified says whether the mode proves who the next hop is.
func (h Hop) verified() bool { return h.TLS != Opportunistic && h.TLS != Plain }

func (h Hop) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{ServerName: h.Host, MinVersion: tls.VersionTLS12}
	if !h.verified() {
		// Whoever can strip STARTTLS can also show any certificate: verifying
		// it here would only turn encrypted deliveries into plain ones.
		c.InsecureSkipVerify = true
		return c, nil
	}
	if h.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(h.CA)) {
			return nil, fmt.Errorf("next hop %s: ca: no certificate in it", h.Host)
		}
	}
	return c, nil
}

// Router says where mail for a domain goes: the first hop that works takes it.
type Router interface {
	Route(domain string) ([]Hop, error)
}

// SmartHosts is a Router that sends everything to the same hops.
type SmartHosts []Hop

// Route returns the hops in order, whatever the domain.
func (s SmartHosts) Route(string) ([]Hop, error) {
	if len(s) == 0 {
		return nil, errors.New("no next hop is set: set relay.smarthost")
	}
	return s, nil
}
