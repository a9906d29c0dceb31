package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// scramRounds is the cost of a SCRAM credential, which the client pays at each
// login and we only where one is made. OWASP's figure for PBKDF2 with SHA-256 is
// 600,000, but Cyrus SASL, which Postfix's client has, refuses more than 65,536.
const scramRounds = 65_000

const scramKind = "SCRAM-SHA-256"

// Scram returns the credential to keep for SCRAM-SHA-256 (RFC 7677), in the form
// of RFC 5803. It is easier to guess the password from than from Hash, so it
// should be kept only where SCRAM is offered. It fails as Hash does, and where
// the password has characters that SASLprep (RFC 4013) forbids.
func Scram(password string) (string, error) { return scramOf(password, scramRounds) }

func scramOf(password string, rounds int) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", fmt.Errorf("password has %d bytes: use 1 to %d", len(password), maxPassword)
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return "", fmt.Errorf("password: a character in it is not allowed with SCRAM (RFC 4013): choose another password")
	}
	keys, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: rounds})
	if err != nil {
		return "", fmt.Errorf("derive SCRAM keys: %w", err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramKind, rounds, b64(salt), b64(keys.StoredKey), b64(keys.ServerKey)), nil
}

// ScramKeys are the keys of a's credential; false where it has none, or is disabled.
func (a Account) ScramKeys() (scram.StoredCredentials, bool) {
	if a.Scram == "" || a.Disabled {
		return scram.StoredCredentials{}, false
	}
	keys, err := parseScram(a.Scram)
	return keys, err == nil
}

// FakeScramKeys are what a client is shown for a name that has no credential:
// always the same for one name and secret, and matched by no password.
func FakeScramKeys(secret []byte, name string) scram.StoredCredentials {
	derive := func(what string) []byte {
		h := hmac.New(sha256.New, secret)
		fmt.Fprintf(h, "%s\x00%s", what, name)
		return h.Sum(nil)
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(derive("salt")[:saltBytes]), Iters: scramRounds},
		StoredKey:  derive("stored"), ServerKey: derive("server"),
	}
}

// parseScram reads a credential.
func parseScram(s string) (scram.StoredCredentials, error) {
	bad := errors.New("SCRAM credential cannot be read: set the password anew")
	parts := strings.Split(s, "$")
	if len(parts) != 3 || parts[0] != scramKind {
		return scram.StoredCredentials{}, bad
	}
	rounds, salt, ok1 := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	n, err := strconv.ParseUint(rounds, 10, 31)
	if !ok1 || !ok2 || err != nil || n < 4096 || n > 10_000_000 || rounds != strconv.FormatUint(n, 10) {
		return scram.StoredCredentials{}, bad
	}
	var raw [3][]byte
	for i, text := range []string{salt, stored, server} {
		if raw[i], err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
			return scram.StoredCredentials{}, bad
		}
	}
	if len(raw[0]) < 8 || len(raw[0]) > 64 || len(raw[1]) != sha256.Size || len(raw[2]) != sha256.Size {
		return scram.StoredCredentials{}, bad
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(raw[0]), Iters: int(n)}, StoredKey: raw[1], ServerKey: raw[2],
	}, nil
}
