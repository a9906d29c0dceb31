// Package acmetest runs a real ACME server for tests: Pebble, of Let's Encrypt.
package acmetest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
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
	t.Setenv(NoSleep, "1")
	a := &Authority{Server: httptest.NewTLSServer(Handler(port, port, "", validity))}
	t.Cleanup(a.Close)
	a.Directory = a.URL + wfe.DirectoryPath
	a.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))
	return a
}

// NoSleep is the environment variable that has to be set to 1 where Handler is
// called: without it each validation waits for some seconds.
const NoSleep = "PEBBLE_VA_NOSLEEP"

// DirectoryPath is where Handler has its directory.
const DirectoryPath = wfe.DirectoryPath

// Handler is an authority to be served over TLS. Its validator connects to these
// ports of what the name server at resolver, an address with a port, says; empty:
// the system's.
func Handler(httpPort, tlsPort int, resolver string, validity uint64) http.Handler {
	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: validity}})
	front := wfe.New(quiet, store, va.New(quiet, httpPort, tlsPort, true, resolver, store), issuer, nil, true, false, 1, 1)
	return front.Handler()
}
