package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	rsaBits = 2048 // what every verifier takes (RFC 8301 3.2)
	minBits = 1024 // below which none does
)

// Kinds of key.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519" // RFC 8463: small and fast, not known to all verifiers
)

// Generate makes a private key of a kind.
func Generate(kind string) (crypto.Signer, error) {
	switch kind {
	case RSA:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	}
	return nil, fmt.Errorf("key type %q: want rsa or ed25519", kind)
}

// MarshalKey writes a private key as PEM (PKCS #8).
func MarshalKey(k crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key in PEM, PKCS #8 or PKCS #1.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no private key in PEM")
	}
	var key any
	var err error
	if block.Type == "RSA PRIVATE KEY" {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minBits {
			return nil, fmt.Errorf("an RSA key of %d bits is too short for DKIM", k.N.BitLen())
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("a key of type %T cannot sign for DKIM: want RSA or Ed25519", key)
}

// Record is what to publish for a key.
type Record struct {
	Name string `json:"name"` // where, without a last dot
	Text string `json:"text"` // the TXT record's content
}

// NewRecord makes the record for a key (RFC 6376 3.6.1, RFC 8463 4).
func NewRecord(domain, selector string, k crypto.Signer) (Record, error) {
	r := Record{Name: selector + "._domainkey." + domain}
	switch pub := k.Public().(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return Record{}, fmt.Errorf("write public key: %w", err)
		}
		r.Text = "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	case ed25519.PublicKey:
		r.Text = "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	default:
		return Record{}, fmt.Errorf("a key of type %T cannot sign for DKIM", pub)
	}
	return r, nil
}

// String is the record as a zone file has it: in strings of at most 255 octets.
func (r Record) String() string {
	var parts []string
	for rest := r.Text; rest != ""; {
		n := min(len(rest), 255)
		parts = append(parts, `"`+rest[:n]+`"`)
		rest = rest[n:]
	}
	if len(parts) == 1 {
		return r.Name + ". IN TXT " + parts[0]
	}
	return r.Name + ". IN TXT ( " + strings.Join(parts, "\n\t") + " )"
}

// CheckNames says what is wrong with the names that a key's record is found by.
func CheckNames(domain, selector string) error {
	if !isName(domain) || !strings.Contains(domain, ".") {
		return fmt.Errorf("domain %q: want one such as example.net, in its xn-- form where it is not ASCII", domain)
	}
	if !isName(selector) || len(selector) > 63 {
		return fmt.Errorf("selector %q: want one such as s2027", selector)
	}
	return nil
}

// isName says whether s is letters, digits and hyphens with dots between.
func isName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return len(s) <= 253
}
