package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHostileFeed has a whole agent fetch a list over HTTPS, under a CA of the
// test's own, from a server that turns against it: the last good list stays in
// force, and status says why.
func TestHostileFeed(t *testing.T) {
	e := newEdge(t, "", "[feeds]\ntimeout = \"2s\"\nmax_bytes = 65536\n")
	cert := selfSigned(t, filepath.Join(e.dir, "ca.pem"))
	e.env = []string{"SSL_CERT_FILE=" + filepath.Join(e.dir, "ca.pem")}
	var mood atomic.Value
	mood.Store("192.0.2.0/24 ; a list\n{\"cidr\":\"2001:db8::/32\"}\n")
	far := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, mood.Load().(string)) }),
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	l := e.far.ListenRaw(net.JoinHostPort(farAddr, "443"))
	go far.ServeTLS(l, "", "")
	t.Cleanup(func() { far.Close() })

	e.start()
	e.must("", "feed", "add", "vpn", "https://"+farAddr+"/list", "--allow")
	e.enforces("192.0.2.1", "198.51.100.1")
	for _, c := range []struct{ mood, words string }{
		{"10 GB", "longer than 65536 bytes"},
		{"slow", "not all of it came within 2s"},
		{"to loopback", "127.0.0.1 is not a public address"},
		{"to http", "which is not https"},
		{"cut", "EOF"},
		{"gone", "404"},
		{"", "no prefix in it"},
		{"<html>\n<p>198.51.100.0/24\n", "lines are bad"},
		{"198.51.100.0/24\n0.0.0.0/0\n", "wider than a /8"},
	} {
		mood.Store(c.mood)
		e.fails(c.words, "", "feed", "refresh", "vpn")
		e.enforces("192.0.2.1", "198.51.100.1")
	}
	mood.Store("gone")
	e.kill()
	e.enforces("192.0.2.1", "198.51.100.1")
	e.start() // asks at once, in vain
	eventually(t, "status says that the list is gone", func() bool {
		return strings.Contains(e.problems(), "feed vpn: its last good 2 prefixes stay: the server says 404")
	})
	e.enforces("192.0.2.1", "198.51.100.1")
	mood.Store("198.51.100.0/24\n")
	e.must("", "feed", "refresh", "vpn")
	e.enforces("198.51.100.1", "192.0.2.1")
}

// serve answers as the mood is; any other mood is the list.
func serve(w http.ResponseWriter, r *http.Request, mood string) {
	switch mood {
	case "10 GB":
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "10.%d.%d.0/24\n", i>>8&255, i&255); err != nil {
				return
			}
		}
	case "slow":
		for r.Context().Err() == nil {
			io.WriteString(w, "\n")
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	case "to loopback":
		http.Redirect(w, r, "https://127.0.0.1/list", http.StatusFound)
	case "to http":
		http.Redirect(w, r, "http://"+farAddr+"/list", http.StatusFound)
	case "cut":
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "198.51.100.0/24\n")
	case "gone":
		http.NotFound(w, r)
	default:
		io.WriteString(w, mood)
	}
}

// selfSigned is the far side's certificate, which it also writes to a file for
// those who are to trust it.
func selfSigned(t *testing.T, path string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(farAddr)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
