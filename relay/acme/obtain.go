package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// client is for the authority of c.
func (c Config) client() (*acme.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAPEM != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(c.CAPEM)) {
			return nil, errors.New("ca: holds no certificate in PEM")
		}
	}
	return &acme.Client{
		Directory: c.Directory, UserAgent: "synward", PollTimeout: 2 * time.Minute,
		HTTPClient: &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment}},
	}, nil
}

// obtain gets a certificate with a new key.
func (k *Keeper) obtain(ctx context.Context, c Config) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	defer api.HTTPClient.CloseIdleConnections()
	k.mu.Lock()
	s := k.state
	k.mu.Unlock()
	own, err := s.account(c.Directory)
	if err != nil {
		return err
	}
	// The account is found by its key; where there is none it is made.
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: own}
	if c.Email != "" {
		account.Contact = []string{"mailto:" + c.Email}
	}
	client := acmez.Client{Client: api, ChallengeSolvers: map[string]acmez.Solver{c.Challenge: solver{k}}}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return fmt.Errorf("make an account: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	chains, err := client.ObtainCertificateForSANs(ctx, account, key, []string{c.Hostname})
	if err != nil {
		return err
	}
	if len(chains) == 0 {
		return errors.New("the authority has given no certificate")
	}
	got, err := newState(c.Directory, own, key, chains[0].ChainPEM)
	if err != nil {
		return err
	}
	return k.got(c, got)
}

// explain puts what went wrong in one line, in the authority's words where it
// has some, with what to look at.
func explain(c Config, err error) string {
	var p acme.Problem
	if !errors.As(err, &p) {
		return oneLine(fmt.Sprintf("ask %s: %v", c.Directory, err))
	}
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	text := fmt.Sprintf("%s refuses a certificate for %s: %s (%s)", c.Directory, c.Hostname, p.Detail, kind)
	for _, sub := range p.Subproblems {
		text += "; " + sub.Detail
	}
	switch p.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeUnauthorized, acme.ProblemTypeDNS, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse:
		port := "80"
		if c.Challenge == TLSALPN01 {
			port = "443"
		}
		text += "; the name must lead here, and port " + port + " be open to everybody"
	case acme.ProblemTypeRateLimited:
		text += "; wait, or try with the authority's staging directory"
	}
	return oneLine(text)
}

// oneLine bounds what others have written.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}
