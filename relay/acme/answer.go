package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/netutil"
)

// challenge is one that is to be answered.
type challenge struct {
	text string           // of http-01
	cert *tls.Certificate // of tls-alpn-01
	name string
}

// solver puts up what proves that the name is ours.
type solver struct{ k *Keeper }

// Present implements acmez.Solver.
func (s solver) Present(_ context.Context, c acme.Challenge) error {
	ch := challenge{text: c.KeyAuthorization, name: c.Identifier.Value}
	if c.Type == TLSALPN01 {
		cert, err := acmez.TLSALPN01ChallengeCert(c)
		if err != nil {
			return fmt.Errorf("make the challenge's certificate: %w", err)
		}
		ch.cert = cert
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.k.open[c.Token] = ch
	return nil
}

// CleanUp implements acmez.Solver.
func (s solver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	delete(s.k.open, c.Token)
	return nil
}

const (
	maxConns    = 64 // at once: it is a port that everybody can reach
	answerTime  = 10 * time.Second
	maxHeader   = 4 << 10
	challengeAt = "/.well-known/acme-challenge/"
)

// Serve answers challenges of a kind on l until ctx ends (nil), and nothing else.
func (k *Keeper) Serve(ctx context.Context, kind string, l net.Listener) error {
	l = netutil.LimitListener(l, maxConns)
	if kind == TLSALPN01 {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: k.challengeCert})
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(k.answer), ReadTimeout: answerTime, WriteTimeout: answerTime, IdleTimeout: answerTime,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(k.opt.Log.Handler(), slog.LevelDebug),
		// The handshake is all that tls-alpn-01 wants; net/http would close it unanswered.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){acmez.ACMETLS1Protocol: func(_ *http.Server, c *tls.Conn, _ http.Handler) { _ = c.Close() }},
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer challenges: %w", err)
	}
	return nil
}

// answer serves one token, to whoever knows it.
func (k *Keeper) answer(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengeAt)
	k.mu.Lock()
	c, known := k.open[token]
	k.mu.Unlock()
	if !ok || !known || c.cert != nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Connection", "close")
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, c.text) // who asks may be gone
}

// challengeCert is for a handshake of an authority, and for no other.
func (k *Keeper) challengeCert(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.open {
		if c.cert != nil && slices.Contains(h.SupportedProtos, acmez.ACMETLS1Protocol) && strings.EqualFold(c.name, h.ServerName) {
			return c.cert, nil
		}
	}
	return nil, errors.New("no challenge is open")
}
