package acme

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// state is what outlives the process, as one file of JSON.
type state struct {
	Directory  string `json:"directory"`
	AccountPEM string `json:"account_pem"` // the key
	KeyPEM     string `json:"key_pem,omitempty"`
	ChainPEM   string `json:"chain_pem,omitempty"`
}

func newState(directory string, account, key *ecdsa.PrivateKey, chain []byte) (state, error) {
	s := state{Directory: directory, ChainPEM: string(bytes.TrimSpace(chain)) + "\n"}
	var err error
	if s.AccountPEM, err = keyPEM(account); err != nil {
		return s, err
	}
	s.KeyPEM, err = keyPEM(key)
	return s, err
}

// account is the key of our account at an authority; a new one where there is none.
func (s state) account(directory string) (*ecdsa.PrivateKey, error) {
	if block, _ := pem.Decode([]byte(s.AccountPEM)); block != nil && s.Directory == directory {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if own, ok := key.(*ecdsa.PrivateKey); ok {
				return own, nil
			}
		}
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// certificate is the one that was kept; nil where it is not for the name, or
// over.
func (s state) certificate(hostname string) *tls.Certificate {
	c, err := tls.X509KeyPair([]byte(s.ChainPEM), []byte(s.KeyPEM))
	if err != nil || c.Leaf.VerifyHostname(hostname) != nil || time.Now().After(c.Leaf.NotAfter) {
		return nil
	}
	return &c
}

func load(path string) (s state, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// save replaces the file as a whole.
func (s state) save(path string) (err error) {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // replaced; not proved durable
	}
	return errors.Join(d.Sync(), d.Close())
}

func keyPEM(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}
