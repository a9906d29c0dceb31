package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"github.com/synward/synward/relay/acme"
)

// defaultDirectory is Let's Encrypt.
const defaultDirectory = "https://acme-v02.api.letsencrypt.org/directory"

// ACMEConfig says whether to get the certificate from an authority that speaks
// ACME (RFC 8555), in the file.
type ACMEConfig struct {
	Enabled     bool   `toml:"enabled"`
	AcceptTerms bool   `toml:"accept_terms"` // of the authority
	Email       string `toml:"email"`        // for the authority's notices
	Directory   string `toml:"directory"`    // empty: Let's Encrypt
	CA          string `toml:"ca"`           // PEM file of roots to trust for it; empty: the system's
	Challenge   string `toml:"challenge"`    // http-01 (default) | tls-alpn-01
	Address     string `toml:"address"`      // to answer on; empty: every address
	Port        uint16 `toml:"port"`         // to answer on; 0: 80 or 443
}

// Listener is where challenges are answered, and how: the form of SYNWARD_LISTENERS.
func (a ACMEConfig) Listener() (name string, l ListenConfig) {
	kind, port := orDefault(a.Challenge, acme.HTTP01), uint16(80)
	if kind == acme.TLSALPN01 {
		port = 443
	}
	l = ListenConfig{Port: orDefault(a.Port, port), Address: a.Address, TLS: kind}
	return fmt.Sprintf("%d/%s", l.Port, kind), l
}

// settings is a without its file; nil: not wanted.
func (a ACMEConfig) settings(hostname, ca string) *acme.Config {
	if !a.Enabled {
		return nil
	}
	_, l := a.Listener()
	return &acme.Config{Directory: orDefault(a.Directory, defaultDirectory), CAPEM: ca, Email: a.Email, Challenge: l.TLS, Hostname: hostname}
}

// validateACME begins its errors with the key below relay.
func (c Config) validateACME() error {
	a := c.ACME
	if !a.Enabled {
		return nil
	}
	switch {
	case c.TLS.Cert != "":
		return errors.New("acme.enabled: relay.tls names a certificate already: take one of the two out")
	case !a.AcceptTerms:
		return errors.New("acme.accept_terms: is not true: read the authority's terms of service, and set it if you agree")
	}
	if a.Address != "" {
		if _, err := netip.ParseAddr(a.Address); err != nil {
			return fmt.Errorf("acme.address: %q is not an IP address", a.Address)
		}
	}
	_, own := a.Listener()
	for i, l := range c.Listen {
		if l.Port == own.Port && (l.Address == own.Address || l.Address == "" || own.Address == "") {
			return fmt.Errorf("acme.port: %d is listened on by relay.listen[%d] already", own.Port, i)
		}
	}
	if err := a.settings(c.Hostname, "").Validate(); err != nil {
		return fmt.Errorf("acme.%w", err)
	}
	return nil
}

// Certificates keeps a certificate that is got from elsewhere.
type Certificates interface {
	Configure(*acme.Config) // nil: none is wanted
	Certificate() *tls.Certificate
	Status() *acme.Status
}

// noCertificates keeps none.
type noCertificates struct{}

func (noCertificates) Configure(*acme.Config)        {}
func (noCertificates) Certificate() *tls.Certificate { return nil }
func (noCertificates) Status() *acme.Status          { return nil }

// serverTLS is what a listener offers: TLS 1.2 and up with Go's own choice of
// suites and curves, which follows the state of the art with the toolchain. Each
// handshake gets the certificate of that moment; fallback where there is none.
func serverTLS(from Certificates, fallback *tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := from.Certificate(); c != nil {
			return c, nil
		}
		return fallback, nil
	}}
}
