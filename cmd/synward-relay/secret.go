package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// secretBytes is the length of the secret.
const secretBytes = 32

// ownSecret reads the spool's secret, and makes it at the first start. It is
// worth nothing to anybody else: it makes up salts for names that are not there.
// With an error it is good until the process ends.
func ownSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == secretBytes {
		return b, nil
	}
	b = make([]byte, secretBytes)
	rand.Read(b)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("read secret: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return b, fmt.Errorf("make secret: %w", err)
	}
	return b, nil
}
