// Package acme keeps a certificate for the relay's name, from a certificate
// authority that speaks ACME (RFC 8555). It gets one, keeps it in a file of the
// spool, and renews it long before its end; what it has is handed to each new
// handshake, so that no session notices. It opens no listener: the challenge is
// answered on one that the agent has bound.
package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The challenges, by their names in RFC 8555 and RFC 8737.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
)

// Config is where a certificate comes from, and for what.
type Config struct {
	Directory string `json:"directory"`         // URL of the authority's directory
	CAPEM     string `json:"ca_pem,omitempty"`  // roots to trust for it; empty: the system's
	Email     string `json:"email,omitempty"`   // for the authority's notices; may be empty
	Challenge string `json:"challenge"`         // HTTP01 or TLSALPN01
	Hostname  string `json:"hostname,omitzero"` // whom the certificate is for
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	u, err := url.Parse(c.Directory)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("directory: %q is not an https URL", c.Directory)
	case c.Challenge != HTTP01 && c.Challenge != TLSALPN01:
		return fmt.Errorf("challenge: %q is neither http-01 nor tls-alpn-01", c.Challenge)
	case c.Email != "" && (!strings.Contains(c.Email, "@") || strings.ContainsAny(c.Email, " ,?\r\n")):
		return fmt.Errorf("email: %q is not an address", c.Email)
	}
	_, err = c.client()
	return err
}

// Status is how the certificate fares.
type Status struct {
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"` // zero: there is none yet
	Error    string    `json:"error,omitempty"`    // why the last try failed
	Next     time.Time `json:"next,omitzero"`      // when it is tried again
}

// Options are what a Keeper is made of.
type Options struct {
	Path string // of the file that it keeps everything in
	Log  *slog.Logger
	Now  func() time.Time
}

// Keeper keeps one certificate.
type Keeper struct {
	opt     Options
	changed chan struct{}

	mu     sync.Mutex
	config *Config
	state  state
	cert   *tls.Certificate // nil: none, or not for the name
	err    string
	next   time.Time
	open   map[string]challenge // by token
}

// New makes a keeper with what the file has. A file that cannot be read is as
// none, and said.
func New(o Options) *Keeper {
	k := &Keeper{opt: o, changed: make(chan struct{}, 1), open: map[string]challenge{}}
	k.opt.Log = o.Log.With("component", "acme")
	var err error
	if k.state, err = load(o.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.opt.Log.Error("cannot read what was kept: a new account and certificate are asked for", "path", o.Path, "error", err)
	}
	return k
}

// Configure says what to keep from now on; nil: nothing.
func (k *Keeper) Configure(c *Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c == nil && k.config == nil || c != nil && k.config != nil && *c == *k.config {
		return
	}
	k.config, k.cert, k.err, k.next = c, nil, "", time.Time{}
	if c != nil && k.state.Directory == c.Directory {
		k.cert = k.state.certificate(c.Hostname)
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Certificate returns what to show; nil: nothing yet.
func (k *Keeper) Certificate() *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cert
}

// Status returns how it fares; nil: nothing is to be kept.
func (k *Keeper) Status() *Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil {
		return nil
	}
	s := &Status{Error: k.err, Next: k.next}
	if k.cert != nil {
		s.Issuer, s.NotAfter = k.cert.Leaf.Issuer.CommonName, k.cert.Leaf.NotAfter
	}
	return s
}

const (
	firstWait = 2 * time.Minute // after a failure; doubles. An authority allows about five in an hour
	lastWait  = 4 * time.Hour
	timeout   = 5 * time.Minute // of one try
)

// Run gets and renews until ctx ends (nil).
func (k *Keeper) Run(ctx context.Context) error {
	fails := 0
	for {
		wait := k.due()
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-k.changed:
			fails = 0
			t.Stop()
			continue
		case <-t.C:
		}
		c := k.wanted()
		if c == nil || k.due() > 0 {
			continue
		}
		try, cancel := context.WithTimeout(ctx, timeout)
		err := k.obtain(try, *c)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			fails = 0
			continue
		}
		fails++
		k.failed(*c, err, min(lastWait, firstWait<<min(fails-1, 10)))
	}
}

func (k *Keeper) wanted() *Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config
}

// due is how long nothing is to be done.
func (k *Keeper) due() time.Duration {
	const forever = time.Hour // the clock may be set meanwhile
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil {
		return forever
	}
	at := k.next
	if k.cert != nil && k.err == "" {
		at = renewal(k.cert)
	}
	return max(0, min(forever, at.Sub(k.opt.Now())))
}

// renewal is when a third of a certificate's life is left.
func renewal(c *tls.Certificate) time.Time {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return c.Leaf.NotAfter.Add(-life / 3)
}

func (k *Keeper) failed(c Config, err error, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil || *k.config != c {
		return
	}
	k.err, k.next = explain(c, err), k.opt.Now().Add(wait)
	k.opt.Log.Error("no certificate", "hostname", c.Hostname, "error", k.err, "again", k.next)
}

// got takes a new certificate over.
func (k *Keeper) got(c Config, s state) error {
	cert := s.certificate(c.Hostname)
	if cert == nil {
		return errors.New("the authority's certificate is not for this name and key, or not valid now")
	}
	if err := s.save(k.opt.Path); err != nil {
		k.opt.Log.Error("cannot keep the certificate: the next start asks for another", "path", filepath.Base(k.opt.Path), "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	if k.config != nil && *k.config == c {
		k.cert, k.err, k.next = cert, "", time.Time{}
	}
	k.opt.Log.Info("certificate", "hostname", c.Hostname, "issuer", cert.Leaf.Issuer.CommonName, "until", cert.Leaf.NotAfter)
	return nil
}
