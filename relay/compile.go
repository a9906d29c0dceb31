package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/relay/account"
)

// compiled is Settings made ready for the sessions. It never changes: a reload
// puts another in its place.
type compiled struct {
	settings Settings
	hash     string
	limits   Limits
	cert     *tls.Certificate // nil: none given
	accounts map[string]account.Account
	ways     func(domain string) []string
	tls      *tls.Config // set by Apply
}

// compile checks s as a whole and makes it ready. The errors name the field.
func (s Settings) compile() (*compiled, error) {
	if err := validHostname(s.Hostname); err != nil {
		return nil, fmt.Errorf("hostname: %w", err)
	}
	c := &compiled{settings: s, hash: s.Hash(), limits: s.Limits.withDefaults(),
		ways:     s.Ways(),
		accounts: make(map[string]account.Account, len(s.Accounts))}
	if s.ACME != nil {
		if err := s.ACME.Validate(); err != nil {
			return nil, fmt.Errorf("acme.%w", err)
		}
	}
	if err := c.limits.validate(); err != nil {
		return nil, fmt.Errorf("limits.%w", err)
	}
	for _, a := range s.Accounts {
		if err := a.Validate(); err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
		if _, dup := c.accounts[a.Name]; dup {
			return nil, fmt.Errorf("accounts: user %s is there twice", a.Name)
		}
		c.accounts[a.Name] = a
	}
	if err := s.checkOnward(); err != nil {
		return nil, err
	}
	for _, p := range s.Peers {
		if !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() {
			return nil, fmt.Errorf("peers: %q is not a masked prefix", p.Prefix)
		}
	}
	if err := s.Quota.validate(); err != nil {
		return nil, fmt.Errorf("quota.%w", err)
	}
	for i, d := range s.RelayDomains {
		if err := account.ValidateDomain(d); err != nil {
			return nil, fmt.Errorf("relay_domains[%d]: %w", i, err)
		}
	}
	var err error
	c.cert, err = s.TLS.certificate()
	return c, err
}

func (l Limits) validate() error {
	switch {
	case l.MaxSize < 1024:
		return fmt.Errorf("max_size: %d is less than 1024 bytes", l.MaxSize)
	case l.MaxRecipients < 1:
		return fmt.Errorf("max_recipients: %d is less than 1", l.MaxRecipients)
	case l.Sessions < 1 || l.SessionsPerSource < 1:
		return errors.New("sessions: less than 1")
	case l.Command < 0 || l.Handshake < 0 || l.Session < 0 || l.AuthDelay < 0:
		return errors.New("command: a duration is negative")
	}
	return nil
}

func (h Smarthost) validate() error {
	file := ""
	if h.Password != "" {
		file = "given"
	}
	if err := (SmarthostConfig{Host: h.Host, TLS: h.TLS, User: h.User, PasswordFile: file, Forward: h.Forward}).validate(); err != nil {
		return err
	}
	if h.Port == 0 {
		return errors.New("port: is missing")
	}
	if h.CAPEM != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(h.CAPEM)) {
		return errors.New("ca: holds no certificate in PEM")
	}
	return nil
}

// certificate returns the chain and key, or nil where none is given.
func (t TLSSettings) certificate() (*tls.Certificate, error) {
	if t.CertPEM == "" && t.KeyPEM == "" {
		return nil, nil
	}
	cert, err := tls.X509KeyPair([]byte(t.CertPEM), []byte(t.KeyPEM))
	if err != nil {
		return nil, fmt.Errorf("tls: %s; give a PEM chain and the key that belongs to it", strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &cert, nil
}

// peer returns the peer that source is on a port, if it is one; the longest prefix
// wins.
func (c *compiled) peer(source netip.Addr, port uint16) (Peer, bool) {
	var best Peer
	found := false
	for _, p := range c.settings.Peers {
		if p.Prefix.Contains(source) && p.on(port) && (!found || p.Prefix.Bits() > best.Prefix.Bits()) {
			best, found = p, true
		}
	}
	return best, found
}

// on says whether the right counts on a port.
func (p Peer) on(port uint16) bool {
	return (len(p.Ports) == 0 || slices.Contains(p.Ports, port)) && !slices.Contains(p.Except, port)
}

// selfSigned makes a certificate for hostname that lives in memory only.
func selfSigned(hostname string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hostname},
		DNSNames: []string{hostname}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
