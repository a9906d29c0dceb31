// Package acmetest runs a real ACME server for tests: Pebble, of Let's Encrypt.
package acmetest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Authority is a certificate authority on loopback.
type Authority struct {
	*httptest.Server
	Directory string // its URL
	CAPEM     string // the root to trust for it
}

// New starts an authority until the test ends. Its validator connects to port of
// localhost. validity is of its certificates, in seconds; 0: as long as usual.
func New(t *testing.T, port int, validity uint64) *Authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: validity}})
	front := wfe.New(quiet, store, va.New(quiet, port, port, true, "", store), issuer, nil, true, false, 1, 1)
	a := &Authority{Server: httptest.NewTLSServer(front.Handler())}
	t.Cleanup(a.Close)
	a.Directory = a.URL + wfe.DirectoryPath
	a.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))
	return a
}
