package deliver

import (
	"context"
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
	Encrypted     TLSMode = "encrypted"     // STARTTLS or no delivery, not verified
	DANE          TLSMode = "dane"          // STARTTLS, verified by Hop.TLSA (RFC 7672), or no delivery
	Plain         TLSMode = "none"
)

// Forward is how a next hop of our own is told who the client was.
type Forward string

// The ways of telling. Both are for a server that trusts our address.
const (
	ForwardNothing Forward = ""
	ForwardXCLIENT Forward = "xclient" // Postfix's command, where the server offers it to us
	ForwardPROXY   Forward = "proxy"   // HAProxy's header, version 1; a connection for each message
)

// Hop is a next hop. It is comparable: connections are shared by equal hops.
type Hop struct {
	Host     string // name or address; the name is what the certificate must be for
	Addr     string // the address to connect to; empty: what Host resolves to
	Port     int    // 0: 465 for Implicit, else 587 with a user and 25 without
	TLS      TLSMode
	CA       string // PEM of the roots to trust instead of the system's
	User     string // empty: no AUTH
	Password string
	TLSA     string // for DANE: a line "usage selector matching hex" for each record
	Forward  Forward
}

// String returns host:port, with the address where that is known.
func (h Hop) String() string {
	if h.Addr == "" || h.Addr == h.Host {
		return h.Address()
	}
	_, port, _ := net.SplitHostPort(h.Address())
	return h.Host + "[" + h.Addr + "]:" + port
}

// Address returns the host:port that is connected to.
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
	host := h.Host
	if h.Addr != "" {
		host = h.Addr
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// Validate says what is wrong with a hop, in words for an operator.
func (h Hop) Validate() error {
	switch h.TLS {
	case "", Required, Implicit, Opportunistic, Encrypted, DANE, Plain:
	default:
		return fmt.Errorf("next hop %s: tls %q: want required, implicit, opportunistic or none", h.Host, h.TLS)
	}
	switch h.Forward {
	case ForwardNothing, ForwardXCLIENT, ForwardPROXY:
	default:
		return fmt.Errorf("next hop %s: forward %q: want xclient or proxy, or leave it out", h.Host, h.Forward)
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
func (h Hop) verified() bool {
	return h.TLS != Opportunistic && h.TLS != Encrypted && h.TLS != Plain
}

func (h Hop) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{ServerName: h.Host, MinVersion: tls.VersionTLS12}
	if !h.verified() {
		// Whoever can strip STARTTLS can also show any certificate: verifying
		// it here would only turn encrypted deliveries into plain ones.
		c.InsecureSkipVerify = true
		return c, nil
	}
	if h.TLS == DANE {
		set, err := parseTLSA(h.TLSA)
		if err != nil {
			return nil, fmt.Errorf("next hop %s: %w", h.Host, err)
		}
		c.InsecureSkipVerify = true // in favour of set.verify
		c.VerifyConnection = func(s tls.ConnectionState) error { return set.verify(s.PeerCertificates, h.Host) }
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
// A *RouteError says what to tell the sender; other errors are temporary.
type Router interface {
	Route(ctx context.Context, domain string) ([]Hop, error)
}

// RouteError is why there is no way to a domain. With a 5xx code it is final.
type RouteError struct {
	Code     int
	Enhanced string // RFC 3463
	Text     string
}

func (e *RouteError) Error() string { return e.Text }

// SmartHosts is a Router that sends everything to the same hops.
type SmartHosts []Hop

// Route returns the hops in order, whatever the domain.
func (s SmartHosts) Route(context.Context, string) ([]Hop, error) {
	if len(s) == 0 {
		return nil, errors.New("no next hop is set: set relay.smarthost")
	}
	return s, nil
}
